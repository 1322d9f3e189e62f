"""Data sets as such: the digits' split, subsets, label noise and arguments."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits as bundled_digits

import sastc.data.digits
from sastc.config import RunConfig
from sastc.data import Dataset, Split, load_dataset, normalise
from sastc.data.subsets import add_label_noise, class_ranks, digest, draw_words, stratified_order, subset
from sastc.facts import FACTS

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


# --- digits -----------------------------------------------------------------------------------------


def test_digits_split_is_the_committed_one(digits):
    listed = json.loads((REPOSITORY / "data" / "digits_split.json").read_text())
    assert digits.train.rows.tolist() == list(range(1437))  # the split itself is what rows count from
    train, test = sastc.data.digits.digits_split(bundled_digits().target.astype(np.int64))
    assert listed["train"] == train.tolist()
    assert listed["test"] == test.tolist()
    assert listed["split_sha256"] == digits.provenance["split_sha256"] == digest(train, test)
    assert listed["images_sha256"] == digits.provenance["data_sha256"]
    labels = bundled_digits().target
    assert digits.train.labels.tolist() == labels[listed["train"]].tolist()
    assert digits.test.labels.tolist() == labels[listed["test"]].tolist()


def test_digits_split_is_stratified_and_disjoint(digits):
    listed = json.loads((REPOSITORY / "data" / "digits_split.json").read_text())
    assert (len(listed["train"]), len(listed["test"])) == (1437, 360) == (len(digits.train), len(digits.test))
    assert sorted(listed["train"] + listed["test"]) == list(range(1797))
    counts = np.bincount(bundled_digits().target)
    assert np.abs(np.bincount(digits.test.labels) - counts * 360 / 1797).max() < 1


def test_digits_pixels_are_bilinear(digits):
    """Enlarge one image by hand: pixel centres, edges repeated, 0 ... 16 becoming 0 ... 255."""
    listed = json.loads((REPOSITORY / "data" / "digits_split.json").read_text())
    small = bundled_digits().images[listed["train"][7]]
    for i in range(16):
        for j in range(16):
            y, x = min(max((i + 0.5) / 2 - 0.5, 0), 7), min(max((j + 0.5) / 2 - 0.5, 0), 7)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, 7), min(x0 + 1, 7)
            top = small[y0, x0] * (1 - x + x0) + small[y0, x1] * (x - x0)
            bottom = small[y1, x0] * (1 - x + x0) + small[y1, x1] * (x - x0)
            assert digits.train.images[7, 0, i, j] == round((top * (1 - y + y0) + bottom * (y - y0)) * 255 / 16)


def test_digits_constants(digits):
    assert (digits.num_classes, digits.in_channels, digits.image_size) == (10, 1, 16)
    assert (digits.crop_padding, digits.flip, digits.label) == (2, False, "Digits (scikit-learn)")
    assert digits.train.images.dtype == torch.uint8
    assert digits.train.labels.dtype == torch.int64
    x = normalise(digits.train.images, digits.mean, digits.std)
    assert x.mean().item() == pytest.approx(0, abs=1e-5)
    assert x.std().item() == pytest.approx(1, abs=1e-3)
    few = load_dataset("digits", train_subset=50)
    assert few.mean == digits.mean  # of the whole training split, so that subsets are normalised alike
    large = load_dataset("digits", image_size=32)
    assert (large.image_size, large.crop_padding) == (32, 4)


def test_changed_digits_are_noticed(monkeypatch):
    bunch = bundled_digits()
    bunch.images[3, 2, 1] += 1
    monkeypatch.setattr(sastc.data.digits, "bundled_digits", lambda: bunch)
    with pytest.raises(ValueError, match="bundled images changed"):
        load_dataset("digits")


def test_provenance_is_json(digits):
    noisy = load_dataset("digits", train_fraction=0.5, label_noise=0.2, data_seed=3).provenance
    assert json.loads(json.dumps(noisy)) == noisy
    assert noisy["noisy_images"] == round(0.2 * noisy["train_images"])
    assert noisy["train_rows_sha256"] != digits.provenance["train_rows_sha256"]


# --- subsets and label noise ------------------------------------------------------------------------


def test_draws_are_the_same_everywhere():
    """PCG64's words are promised by NumPy; the digests would change with any of our own rules."""
    assert draw_words(2, 0).tolist() == [11749869230777074271, 4976686463289251617]
    made = load_dataset("digits", train_subset=100, label_noise=0.3, data_seed=7).provenance
    assert made["train_rows_sha256"].startswith("7e59469862e16a76")
    assert made["noisy_rows_and_labels_sha256"].startswith("a7d760d580239dd9")


def test_words_do_not_depend_on_how_many():
    assert np.array_equal(draw_words(5, 1, 2), draw_words(9, 1, 2)[:5])
    assert not np.array_equal(draw_words(5, 1, 2), draw_words(5, 2, 1))


def test_class_ranks_against_loops():
    labels = np.array([2, 0, 2, 1, 0, 2, 2, 0])
    shuffled, ranks = class_ranks(labels, 4)
    seen = {}
    for i in shuffled.tolist():
        assert ranks[i] == seen.get(labels[i], 0)
        seen[labels[i]] = seen.get(labels[i], 0) + 1


def test_every_beginning_is_stratified():
    labels = np.repeat(np.arange(4), [50, 30, 15, 5])
    order = stratified_order(labels, 0)
    assert sorted(order.tolist()) == list(range(100))
    for n in range(1, 101):
        quota = np.array([50, 30, 15, 5]) * n / 100
        assert np.abs(np.bincount(labels[order[:n]], minlength=4) - quota).max() <= 1


@pytest.mark.parametrize("fraction", [0.01, 0.25, 0.5, 0.75])
def test_fraction_keeps_exactly_so_many_of_each_class(digits, fraction):
    part = load_dataset("digits", train_fraction=fraction, data_seed=1)
    counts = torch.bincount(digits.train.labels).tolist()
    assert torch.bincount(part.train.labels).tolist() == [round(fraction * count) for count in counts]
    assert torch.equal(part.train.images, digits.train.images[part.train.rows])
    assert torch.equal(part.train.labels, digits.train.labels[part.train.rows])
    assert torch.equal(part.test.images, digits.test.images)


@pytest.mark.parametrize("size", [1, 7, 100, 1436, 1437])
def test_subset_keeps_exactly_so_many(digits, size):
    part = load_dataset("digits", train_subset=size)
    assert len(part.train) == len(set(part.train.rows.tolist())) == size
    quota = torch.bincount(digits.train.labels) * size / 1437
    assert (torch.bincount(part.train.labels, minlength=10) - quota).abs().max() <= 1


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_validation_images_come_from_the_training_split(digits, fraction):
    part = load_dataset("digits", validation=fraction, train_subset=100)
    held, kept = set(part.test.rows.tolist()), set(part.train.rows.tolist())
    whole = load_dataset("digits", validation=fraction)
    assert held == set(whole.test.rows.tolist()), "held out before the subset is taken"
    assert not held & set(whole.train.rows.tolist())
    assert len(held) + len(whole.train) == len(digits.train)
    assert len(kept) == 100
    counts = np.bincount(digits.train.labels)
    np.testing.assert_array_equal(np.bincount(part.test.labels), np.round(fraction * counts))
    assert torch.equal(part.test.images, digits.train.images[part.test.rows])
    assert held != set(load_dataset("digits", validation=fraction, data_seed=1).test.rows.tolist())


def test_validation_must_take_and_leave_something():
    with pytest.raises(ValueError, match=r"validation=0.001: holds out 0"):
        load_dataset("digits", validation=0.001)
    for share in (0.9, -0.1, "a tenth"):
        with pytest.raises(ValueError, match=r"validation=.*: must be a finite number >= 0 and <= 0.5"):
            load_dataset("digits", validation=share)


def test_subsets_are_nested_and_seeded(digits):
    def rows(**options):
        return set(load_dataset("digits", **options).train.rows.tolist())

    assert rows(train_fraction=0.25) < rows(train_fraction=0.5) < rows(train_fraction=0.75)
    assert rows(train_subset=10) < rows(train_subset=11) < rows(train_subset=300)
    assert rows(train_subset=300) == rows(train_subset=300)
    assert rows(train_subset=300) != rows(train_subset=300, data_seed=1)


def test_fraction_of_a_subset():
    whole, part = (load_dataset("digits", train_subset=400, train_fraction=f, data_seed=2).train for f in (1.0, 0.25))
    assert torch.bincount(part.labels).tolist() == [round(0.25 * n) for n in torch.bincount(whole.labels).tolist()]
    assert set(part.rows.tolist()) < set(whole.rows.tolist())


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.2, 0.5, 1.0])
def test_noise_is_exact_and_always_wrong(digits, fraction):
    noisy = load_dataset("digits", label_noise=fraction)
    changed = noisy.train.labels != noisy.train.clean_labels
    assert changed.sum() == round(fraction * 1437)
    assert torch.equal(noisy.train.clean_labels, digits.train.labels)
    assert noisy.train.labels.min() >= 0
    assert noisy.train.labels.max() <= 9
    assert torch.equal(noisy.test.labels, digits.test.labels)
    assert torch.equal(noisy.test.clean_labels, digits.test.labels)


def test_noise_is_nested_and_seeded():
    small, large = (load_dataset("digits", label_noise=fraction).train for fraction in (0.1, 0.2))
    changed = small.labels != small.clean_labels
    assert torch.equal(small.labels[changed], large.labels[changed])
    other = load_dataset("digits", label_noise=0.1, data_seed=1).train
    assert not torch.equal(other.labels, small.labels)


def test_noise_is_uniform_over_the_other_classes():
    labels = torch.full((90_000,), 3)
    noisy = add_label_noise(Split(torch.zeros(90_000, 1, 1, 1, dtype=torch.uint8), labels), 10, 1.0, 0)
    counts = torch.bincount(noisy.labels, minlength=10)
    assert counts[3] == 0
    others = counts[torch.arange(10) != 3].double()
    assert ((others - 10_000) ** 2 / 10_000).sum() < 26.1  # chi squared, 8 degrees of freedom, 0.1 %


def test_noise_comes_after_the_subset_and_belongs_to_the_image():
    full = load_dataset("digits", label_noise=1.0).train
    part = load_dataset("digits", label_noise=0.3, train_fraction=0.5).train
    changed = part.labels != part.clean_labels
    assert changed.sum() == round(0.3 * len(part))
    assert torch.equal(part.labels[changed], full.labels[part.rows[changed]])


def test_noise_needs_another_class():
    with pytest.raises(ValueError, match=r"label_noise=0.5: must be 0 where there is no other class"):
        add_label_noise(Split(torch.zeros(4, 1, 1, 1, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)), 1, 0.5, 0)


@pytest.mark.parametrize("classes", [("a", "b"), ("a", "b", "c")])
def test_subset_that_empties_a_class(classes):
    split = Split(torch.zeros(30, 1, 1, 1, dtype=torch.uint8), torch.arange(30) % 2)
    with pytest.raises(ValueError, match=r"train_fraction=0.01: keeps no image of class 'a'"):
        subset(split, classes, None, 0.01, 0)


# --- arguments --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "mnist"}, r"dataset='mnist': must be one of digits, cifar10"),
        ({"name": "dvs_gesture"}, r"timesteps=None: must be an integer >= 1 and <= 1024"),
        ({"image_size": 7}, r"image_size=7: must be an integer >= 8 and <= 1024"),
        ({"image_size": 16.0}, r"image_size=16.0"),
        ({"train_subset": 0}, r"train_subset=0: must be an integer >= 1"),
        ({"train_subset": 1438}, r"train_subset=1438: must be between 1 and 1437"),
        ({"train_fraction": 0}, r"train_fraction=0: must be a finite number > 0 and <= 1"),
        ({"train_fraction": 1.01}, r"train_fraction=1.01: must be a finite number > 0 and <= 1"),
        ({"train_fraction": float("nan")}, r"train_fraction=nan"),
        ({"train_fraction": 0.001}, r"train_fraction=0.001: keeps no image of class '0'"),
        ({"label_noise": -0.1}, r"label_noise=-0.1: must be a finite number >= 0 and <= 1"),
        ({"label_noise": "0.1"}, r"label_noise='0.1'"),
        ({"label_noise": True}, r"label_noise=True"),
        ({"data_seed": -1}, r"data_seed=-1: must be an integer >= 0"),
        ({"train_subset": 20, "train_fraction": 0.1}, r"train_fraction=0.1: keeps no image of class '0'"),
    ],
)
def test_bad_arguments_name_field_value_and_range(options, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(**{"name": "digits", **options})


def test_arguments_may_be_numbers_of_numpy(digits):
    given = dict(train_subset=np.int64(100), data_seed=np.uint8(3), label_noise=np.float32(0.5))
    ours, theirs = (
        load_dataset("digits", **options).provenance for options in (given, {n: v.item() for n, v in given.items()})
    )
    assert json.dumps(ours) == json.dumps(theirs)


CARD = REPOSITORY / "data/README.md"


@pytest.mark.parametrize("name", [name for name, facts in FACTS.items() if facts.train])
def test_the_data_card_has_the_facts(name):
    facts = FACTS[name]
    _, _, images, classes, size, *_ = next(
        line.split("|") for line in CARD.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{name}`")
    )
    assert images.strip() == f"{facts.train:,} + {facts.test:,}"
    assert classes.strip() == f"{facts.classes:,}"
    assert f"{facts.image_size}×{facts.image_size}" in size
    seen = RunConfig(dataset=name).image_size
    assert seen == facts.image_size or f"{seen}×{seen}" in size.split("in runs")[1]


@pytest.mark.parametrize("name", ["digits", "digits_dvs"])
def test_facts_are_those_of_the_loaded_data(name):
    facts, data = FACTS[name], load_dataset(name, timesteps=2)
    assert (len(data.train), len(data.test)) == facts.counts
    assert (data.in_channels, data.num_classes, data.image_size) == (facts.channels, facts.classes, facts.image_size)
