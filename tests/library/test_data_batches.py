"""From a split to batches: augmentation against loops, order and draws from (seed, epoch) alone, ranks."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from data_files import batches, joined, same

from sastc.data import Dataset, Split, augment, epoch_batches, normalise, num_batches


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


# --- split ------------------------------------------------------------------------------------------


def test_split_checks_lengths_and_keeps_origin():
    images = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"equally long, got \[4, 3, 3, 3\]"):
        Split(images, torch.zeros(3, dtype=torch.int64))
    split = Split(images, torch.arange(4))
    assert split.take([3, 1]).take([0]).rows.tolist() == [3]
    assert split.to("cpu") is split
    assert split.to("meta") is split.to("meta")  # moved once


def test_split_takes_bytes_and_whole_labels_alone():
    images, labels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.arange(4)
    with pytest.raises(ValueError, match=r"images are torch.float32: must be a tensor of torch.uint8"):
        Split(images.float(), labels)
    with pytest.raises(ValueError, match=r"^labels are torch.int32: must be a tensor of torch.int64"):
        Split(images, labels.int())
    with pytest.raises(ValueError, match=r"^labels are ndarray: must be a tensor of torch.int64"):
        Split(images, labels.numpy())
    with pytest.raises(ValueError, match=r"images are torch.float32: must be torch.uint8"):
        normalise(images.float(), (0.5,), (0.5,))


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
        ({"size": 0}, r"batch_size=0: must be an integer >= 1"),
        ({"size": 2.5}, r"batch_size=2.5"),
        ({"size": True}, r"batch_size=True"),
        ({"seed": -1}, r"seed=-1: must be an integer >= 0"),
        ({"epoch": -1}, r"epoch=-1"),
        ({"split": "val"}, r"split='val': must be one of train, test"),
        ({"size": 11, "drop_last": True}, r"batch_size=11: with drop_last it must be between 1 and 10"),
        ({"rank": 2, "world_size": 2}, r"rank=2: must be between 0 and"),
        ({"size": 3, "world_size": 2}, r"batch_size=3: leaves a batch of 1 images for world_size=2"),
    ],
)
def test_bad_batch_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        batches(toy(), **options)


def test_evaluation_needs_no_more_than_a_split_and_a_size():
    options = dict(train=False, seed=3, epoch=1, drop_last=False, device="cpu")
    for ours, theirs in zip(epoch_batches(toy(), "test", 4), epoch_batches(toy(), "test", 4, **options), strict=True):
        assert all(map(torch.equal, ours, theirs))


def test_bad_arguments_are_noticed_at_the_call():
    with pytest.raises(ValueError, match="seed"):
        epoch_batches(toy(), "train", 4, train=True, seed=-1, epoch=0, drop_last=False, device="cpu")
