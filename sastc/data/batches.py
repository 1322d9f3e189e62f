"""From stored uint8 images to the batches that a network sees.

Order and augmentation are functions of (seed, epoch) alone: a resumed run needs no state of a random generator, and
methods with the same seed see the same images in the same order.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sastc.checks import check_integer, check_one_of
from sastc.data.dataset import Dataset, Split
from sastc.data.lazy import DRAWS, LazyImages
from sastc.data.subsets import AUGMENT, ORDER, draw_words

Batch = tuple[Tensor, Tensor, Tensor]
Generators = Iterator[torch.Generator] | None  # one a batch; None where images are taken as they are
AHEAD = 2  # lazy batches being decoded while one is in use


def augment(images: Tensor, generator: torch.Generator, padding: int, flip: bool, wrap: bool = False) -> Tensor:
    """Pad with zeros, crop at random to the old size, mirror half of the images (Appendix 1, datasets).

    Parameters
    ----------
    images : Tensor
        (B, C, H, W), or (B, T, C, H, W), whose steps are cropped and mirrored alike; any type, any device.
    generator : torch.Generator
        On the CPU, so that a GPU sees the augmentation that the CPU sees.
    padding : int
        Pixels added on each side.
    flip : bool
        Whether to mirror.
    wrap : bool
        Pad with the other side instead of zeros, so that images are rolled.
    """
    return _moved(images, _views(len(images), generator, padding).to(images.device), padding, flip, wrap)


def _views(batch: int, generator: torch.Generator, padding: int) -> Tensor:
    """Top and left of every crop, and whether it is mirrored: (3, B)."""
    places = torch.randint(2 * padding + 1, (2, batch), generator=generator)
    return torch.cat([places, torch.randint(2, (1, batch), generator=generator)])


def _moved(images: Tensor, views: Tensor, padding: int, flip: bool, wrap: bool) -> Tensor:
    shape, images = images.shape, images.flatten(1, -3)
    (batch, _, height, width), (top, left, mirrored) = images.shape, views
    if padding:
        padded = F.pad(images, (padding,) * 4, "circular" if wrap else "constant")
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        images = windows[torch.arange(batch, device=images.device), :, top, left]  # (B, C, H, W)
    return (torch.where(mirrored.bool().view(-1, 1, 1, 1), images.flip(-1), images) if flip else images).view(shape)


def normalise(
    images: Tensor, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Scale uint8 images (..., C, H, W) to [0, 1], subtract the channels' mean, divide by their std."""
    if images.dtype != torch.uint8:
        raise ValueError(f"images are {images.dtype}: must be torch.uint8, 0 ... 255")
    mean, std = (
        torch.as_tensor(value, dtype=torch.float32, device=images.device).view(-1, 1, 1) for value in (mean, std)
    )
    return images.float().div_(255).sub_(mean).div_(std).to(dtype)


def num_batches(dataset: Dataset, split: str, batch_size: int, *, drop_last: bool = False) -> int:
    """Return how many batches `epoch_batches` yields."""
    size = len(_split(dataset, split))
    return size // batch_size if drop_last else -(-size // batch_size)


def epoch_batches(
    dataset: Dataset,
    split: str,
    batch_size: int,
    *,
    train: bool = False,
    seed: int = 0,
    epoch: int = 0,
    drop_last: bool = False,
    device: torch.device | str = "cpu",
    reshuffle: bool = True,
    dtype: torch.dtype = torch.float32,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """Iterate over one epoch of the "train" or the "test" split of a data set.

    Parameters
    ----------
    batch_size : int
        Images a batch, over all ranks.
    train : bool
        Shuffle and augment; or, by default, take the images as they are, in their order.
    seed, epoch : int
        All that the order and the augmentation depend on; non-negative.
    drop_last : bool
        Leave out the last batch if it is not full.
    device : torch.device or str
        Where the batches are. Images in memory are moved there once, as uint8.
    reshuffle : bool
        False: every epoch has the order of epoch 0; the augmentation still changes.
    rank, world_size : int
        This process's share of every batch: images rank, rank + world_size, ... All ranks together see exactly what a
        single process sees.

    Yields
    ------
    x : Tensor
        (B, C, H, W), or (T, B, C, H, W) of a set of sequences; normalised, of type `dtype`.
    y : Tensor
        (B,), int64 labels.
    index : Tensor
        (B,), int64, the images' places in the split.

    Raises
    ------
    ValueError
        At the call for an argument out of range; while iterating for an image that cannot be decoded.
    """
    part = _split(dataset, split)
    for field, value, low in (("batch_size", batch_size, 1), ("seed", seed, 0), ("epoch", epoch, 0)):
        check_integer(field, value, low)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank={rank!r}: must be between 0 and world_size - 1 = {world_size - 1}")
    size = len(part)
    if drop_last:
        size -= size % batch_size
        if size == 0:
            raise ValueError(
                f"batch_size={batch_size}: with drop_last it must be between 1 and {len(part)}, the {split} split"
            )
    smallest = size % batch_size or batch_size
    if smallest < world_size:
        raise ValueError(
            f"batch_size={batch_size}: leaves a batch of {smallest} images for world_size={world_size} processes; "
            "every process needs at least one: choose another batch_size or drop_last"
        )
    order = torch.arange(len(part))
    if train:  # paper: not given  released: order of epoch 0 in every epoch (reshuffle=False)
        words = draw_words(len(part), seed, ORDER, epoch if reshuffle else 0)
        order = torch.from_numpy(np.argsort(words, kind="stable"))
    batches = order[:size].split(batch_size)
    generators = (_generator(seed, epoch, step) for step in range(len(batches))) if train else None
    return _batches(dataset, part.to(device), batches, generators, dtype, slice(rank, None, world_size))


def _split(dataset: Dataset, split: str) -> Split:
    check_one_of("split", split, ("train", "test"))
    return dataset.train if split == "train" else dataset.test


def _generator(seed: int, epoch: int, step: int) -> torch.Generator:
    word = int(draw_words(1, seed, AUGMENT, epoch, step)[0])
    return torch.Generator().manual_seed(word >> 1)  # manual_seed takes 63 bits on every platform


def _batches(
    dataset: Dataset, part: Split, batches: Sequence[Tensor], generators: Generators, dtype: torch.dtype, mine: slice
) -> Iterator[Batch]:
    device = part.labels.device
    mean, std = (torch.tensor(value, device=device) for value in (dataset.mean, dataset.std))
    # Sent once an epoch: with every copy to a GPU this process may wait until the GPU has done what it was given.
    sizes = [len(indices) for indices in batches]
    sent = torch.cat(batches).to(device).split(sizes)
    if isinstance(part.images, LazyImages):
        images = _decoded(part.images, batches, generators, mine)
        if device.type == "cuda":  # which fetches pinned memory while this process goes on
            images = (pixels.pin_memory().to(device, non_blocking=True) for pixels in images)
    elif generators is None:
        images = (part.images[indices[mine]] for indices in sent)
    else:  # whole batches, so that the draws do not depend on the number of ranks
        how = (dataset.crop_padding, dataset.flip, dataset.wrap)
        draws = [_views(size, generator, how[0]) for size, generator in zip(sizes, generators, strict=True)]
        views = torch.cat(draws, 1).to(device).split(sizes, 1)
        images = (_moved(part.images[i], view, *how)[mine] for i, view in zip(sent, views, strict=True))
    for indices, pixels in zip(sent, images, strict=True):
        if pixels.dim() == 5:
            pixels = pixels.transpose(0, 1).contiguous()  # networks want time first
        yield normalise(pixels.to(device), mean, std, dtype), part.labels[indices[mine]], indices[mine]


def _decoded(images: LazyImages, batches: Sequence[Tensor], generators: Generators, mine: slice) -> Iterator[Tensor]:
    """Decode batches in threads, `AHEAD` of them while one is in use."""

    def submit(indices: Tensor) -> list[Future]:
        draws: Sequence = [None] * len(indices)
        if generators is not None:
            draws = torch.rand(len(indices), DRAWS, dtype=torch.float64, generator=next(generators)).numpy()
        return [pool.submit(images.decode, *job) for job in zip(indices[mine].tolist(), draws[mine], strict=True)]

    pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="decode")
    try:
        waiting: deque[list[Future]] = deque()
        for indices in batches:
            waiting.append(submit(indices))
            if len(waiting) > AHEAD:
                yield torch.from_numpy(np.stack([future.result() for future in waiting.popleft()]))
        while waiting:
            yield torch.from_numpy(np.stack([future.result() for future in waiting.popleft()]))
    finally:  # also when the caller stops early or an image is damaged
        pool.shutdown(wait=True, cancel_futures=True)
