"""Data sets as such: the digits' split, subsets, label noise, augmentation, batches and arguments."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import batches, joined, same
from sklearn.datasets import load_digits as bundled_digits

import sastc.data.digits
from sastc.data import Dataset, Split, augment, epoch_batches, load_dataset, normalise, num_batches
from sastc.data.subsets import add_label_noise, class_ranks, digest, draw_words, stratified_order, subset

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


def toy(n=10, channels=3, size=8, **changes) -> Dataset:
    """A data set of random pixels, for the parts that do not care where images come from."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2 * n, channels, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.arange(2 * n) % 5
    plain = Dataset(
        name="toy",
        label="Toy",
        classes=tuple("abcde"),
        train=Split(images[:n], labels[:n]),
        test=Split(images[n:], labels[n:]),
        mean=(0.5, 0.4, 0.3)[:channels],
        std=(0.2, 0.3, 0.4)[:channels],
        crop_padding=2,
        flip=True,
        provenance={},
    )
    return replace(plain, **changes)


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
    assert made["noisy_rows_and_labels_sha256"].startswith("NOISE")


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


def test_subsets_are_nested_and_seeded(digits):
    def rows(**options):
        return set(load_dataset("digits", **options).train.rows.tolist())

    assert rows(train_fraction=0.25) < rows(train_fraction=0.5) < rows(train_fraction=0.75)
    assert rows(train_subset=10) < rows(train_subset=11) < rows(train_subset=300)
    assert rows(train_subset=300) == rows(train_subset=300)
    assert rows(train_subset=300) != rows(train_subset=300, data_seed=1)


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


@pytest.mark.parametrize("classes", [("a", "b"), ("a", "b", "c")])
def test_subset_that_empties_a_class(classes):
    split = Split(torch.zeros(30, 1, 1, 1, dtype=torch.uint8), torch.arange(30) % 2)
    with pytest.raises(ValueError, match=r"train_fraction=0.01: keeps no image of class 'a'"):
        subset(split, classes, None, 0.01, 0)


# --- split ------------------------------------------------------------------------------------------


def test_split_checks_lengths_and_keeps_origin():
    images = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"equally long, got \[4, 3, 3, 3\]"):
        Split(images, torch.zeros(3, dtype=torch.int64))
    split = Split(images, torch.arange(4))
    assert split.take([3, 1]).take([1]).rows.tolist() == [1]
    assert split.to("cpu") is split
    assert split.to("meta") is split.to("meta")  # moved once


# --- augmentation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("flip", [False, True])
def test_augment_against_a_loop(padding, flip):
    images = torch.randint(0, 256, (20, 3, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    before = images.clone()
    got = augment(images, torch.Generator().manual_seed(3), padding, flip)
    generator = torch.Generator().manual_seed(3)
    top, left = torch.randint(2 * padding + 1, (2, 20), generator=generator)
    mirrored = torch.randint(2, (20,), generator=generator)
    for b in range(20):
        expected = np.zeros((3, 9, 7), dtype=np.uint8)
        for i in range(9):
            for j in range(7):
                y, x = i + top[b].item() - padding, j + left[b].item() - padding
                if 0 <= y < 9 and 0 <= x < 7:
                    expected[:, i, 6 - j if flip and mirrored[b] else j] = images[b, :, y, x].numpy()
        assert np.array_equal(got[b].numpy(), expected)
    assert torch.equal(images, before)
    assert got.dtype == torch.uint8


def test_augment_uses_all_offsets_and_both_sides_equally():
    """One bright pixel in the middle shows where each crop was taken."""
    image = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    image[..., 4, 4] = 1
    seen = augment(image.expand(16_200, -1, -1, -1), torch.Generator().manual_seed(0), 4, False).double().sum((0, 1))
    assert seen.sum() == 16_200  # 4 pixels each way never lose the middle
    assert ((seen - 200) ** 2 / 200).sum() < 124.8  # chi squared, 80 degrees of freedom, 0.1 %
    image = torch.tensor([[[[0, 1]]]], dtype=torch.uint8).expand(10_000, -1, -1, -1)
    assert 4_800 < augment(image, torch.Generator().manual_seed(0), 0, True)[..., 0].sum() < 5_200


def test_normalise_against_float64():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, 3, 1, 1)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    expected = np.stack([(images[0, c].numpy() / 255.0 - mean[c]) / std[c] for c in range(3)])
    got = normalise(images, mean, std)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got[0].numpy(), expected, rtol=2e-6, atol=2e-6)
    assert normalise(images, mean, std, torch.bfloat16).dtype == torch.bfloat16


# --- batches ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [4, 4, 2]), (True, [4, 4])])
def test_an_epoch_sees_every_image_once(drop_last, sizes):
    data = toy()
    got = batches(data, drop_last=drop_last)
    assert [len(y) for _, y, _ in got] == sizes
    assert len(sizes) == num_batches(data, "train", 4, drop_last=drop_last)
    _, y, index = joined(got)
    assert len(set(index.tolist())) == sum(sizes)
    assert torch.equal(y, data.train.labels[index])
    assert index.tolist() != sorted(index.tolist())


def test_training_batches_against_a_reference():
    """The pixels are those of `index`, shifted by at most the padding and perhaps mirrored."""
    data = toy()
    for x, _, index in batches(data, epoch=2):
        for image, i in zip(x, index, strict=True):
            padded = torch.nn.functional.pad(data.train.images[i], (2, 2, 2, 2))
            views = [padded[:, t : t + 8, s : s + 8] for t in range(5) for s in range(5)]
            views += [view.flip(-1) for view in views]
            assert any(torch.equal(normalise(view, data.mean, data.std), image) for view in views)


def test_test_batches_are_untouched_and_in_order():
    data = toy()
    x, y, index = joined(batches(data, "test", train=False, epoch=5))
    assert index.tolist() == list(range(10))
    assert torch.equal(x, normalise(data.test.images, data.mean, data.std))
    assert torch.equal(y, data.test.labels)


def test_seed_and_epoch_determine_everything():
    data = toy()
    state = torch.get_rng_state()
    first = batches(data, seed=1, epoch=3)
    torch.manual_seed(99), np.random.seed(99), random.seed(99)  # noqa: NPY002
    assert same(first, batches(data, seed=1, epoch=3))
    torch.set_rng_state(state)
    batches(data)
    assert torch.equal(state, torch.get_rng_state())  # nor is the global state used up
    orders = [joined(batches(data, seed=s, epoch=e))[2].tolist() for s in range(3) for e in range(3)]
    assert len({tuple(order) for order in orders}) == 9


def test_without_reshuffling_only_the_order_repeats():
    data = toy()
    zero, one = (joined(batches(data, epoch=epoch, reshuffle=False)) for epoch in (0, 1))
    assert torch.equal(zero[2], one[2])
    assert not torch.equal(zero[0], one[0])
    assert same(batches(data, epoch=0), batches(data, epoch=0, reshuffle=False))


@pytest.mark.parametrize("train", [True, False])
def test_ranks_share_what_one_process_sees(train):
    data = toy()
    whole = batches(data, train=train)
    shares = [batches(data, train=train, rank=rank, world_size=2) for rank in range(2)]
    for full, even, odd in zip(whole, *shares, strict=True):
        for a, b, c in zip(full, even, odd, strict=True):
            assert torch.equal(a[0::2], b)
            assert torch.equal(a[1::2], c)


def test_batches_have_the_asked_type():
    x, y, index = batches(toy(channels=1), dtype=torch.float64)[0]
    assert (x.dtype, y.dtype, index.dtype) == (torch.float64, torch.int64, torch.int64)
    assert x.shape == (4, 1, 8, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, r"batch_size=0: must be an integer of at least 1"),
        ({"size": 2.5}, r"batch_size=2.5"),
        ({"size": True}, r"batch_size=True"),
        ({"seed": -1}, r"seed=-1: must be an integer of at least 0"),
        ({"epoch": -1}, r"epoch=-1"),
        ({"split": "val"}, r"split='val': must be 'train' or 'test'"),
        ({"size": 11, "drop_last": True}, r"batch_size=11: with drop_last it must be between 1 and 10"),
        ({"rank": 2, "world_size": 2}, r"rank=2: must be between 0 and"),
        ({"size": 3, "world_size": 2}, r"batch_size=3: leaves a batch of 1 images for world_size=2"),
    ],
)
def test_bad_batch_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        batches(toy(), **options)


def test_bad_arguments_are_noticed_at_the_call():
    with pytest.raises(ValueError, match="seed"):
        epoch_batches(toy(), "train", 4, train=True, seed=-1, epoch=0, drop_last=False, device="cpu")


# --- arguments --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "mnist"}, r"dataset='mnist': must be one of digits, cifar10"),
        ({"name": "dvs_gesture"}, r"dataset='dvs_gesture': planned, not implemented yet; available: digits"),
        ({"image_size": 7}, r"image_size=7: must be an integer from 8 to 1024"),
        ({"image_size": 16.0}, r"image_size=16.0"),
        ({"train_subset": 0}, r"train_subset=0: must be an integer of at least 1"),
        ({"train_subset": 1438}, r"train_subset=1438: must be between 1 and 1437"),
        ({"train_fraction": 0}, r"train_fraction=0: must be a number in \(0, 1\]"),
        ({"train_fraction": 1.01}, r"train_fraction=1.01: must be a number in \(0, 1\]"),
        ({"train_fraction": float("nan")}, r"train_fraction=nan"),
        ({"train_fraction": 0.001}, r"train_fraction=0.001: keeps no image of class '0'"),
        ({"label_noise": -0.1}, r"label_noise=-0.1: must be a number in \[0, 1\]"),
        ({"label_noise": "0.1"}, r"label_noise='0.1'"),
        ({"label_noise": True}, r"label_noise=True"),
        ({"data_seed": -1}, r"data_seed=-1: must be an integer of at least 0"),
        ({"train_subset": 10, "train_fraction": 0.5}, r"exclude each other"),
    ],
)
def test_bad_arguments_name_field_value_and_range(options, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(**{"name": "digits", **options})
