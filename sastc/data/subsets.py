"""Which training images are kept and which labels are wrong: seeded, nested and the same everywhere.

Only raw 64-bit words of PCG64 are used: NumPy promises that stream for all versions, which it does not for
`Generator.permutation` and the like. Words belong to an image's place in the full split, so an image has the same rank
and the same wrong label whatever subset it is in. Only `subset` ranks within what validation images leave, so with them
it keeps others than without.
"""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sastc.data.dataset import Split

# One independent stream for each purpose; a new purpose takes a new number.
DIGITS_SPLIT, SUBSET, NOISY_IMAGES, WRONG_CLASS, ORDER, AUGMENT, VALIDATION, EVENTS, DVS_SPLIT = range(9)


def draw_words(n: int, *key: int) -> NDArray[np.uint64]:
    """Return `n` raw words (n,) of the stream named by `key`, a tuple of non-negative integers."""
    return np.random.PCG64(np.random.SeedSequence(key)).random_raw(n)


def digest(*arrays: Tensor | NDArray[np.int64]) -> str:
    """SHA-256 of the arrays' values as little-endian int64, one after the other."""
    values = np.concatenate([np.asarray(array).ravel() for array in arrays])
    return hashlib.sha256(values.astype("<i8").tobytes()).hexdigest()


def class_ranks(labels: NDArray[np.int64], *key: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A random order of all images (N,), and the number of each, from 0, among its class in that order (N,)."""
    shuffled = np.argsort(draw_words(len(labels), *key), kind="stable")
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    ranks = np.empty(len(labels), dtype=np.int64)
    ranks[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return shuffled, ranks


def stratified_order(labels: NDArray[np.int64], *key: int) -> NDArray[np.int64]:
    """Return a random order (N,) of which every beginning is stratified.

    An image of rank r in a class of n images is placed at (r + 1/2) / n: a cut there gives each class its share by
    Sainte-Laguë's method, and smaller cuts lie inside larger ones.
    """
    shuffled, ranks = class_ranks(labels, *key)
    place = (ranks + 0.5) / np.bincount(labels)[labels]
    return shuffled[np.argsort(place[shuffled], kind="stable")]


def subset(split: Split, classes: tuple[str, ...], size: int | None, fraction: float, seed: int) -> Split:
    """Keep a stratified part of a split, in the split's own order.

    First `size` images, or all, with classes in proportion; of these round(fraction * count) images of each class
    (Appendix 1, few-shot learning). `seed` draws the order in which images are kept.

    Raises ValueError if `size` exceeds the split or `fraction` leaves a class empty, and names it.
    """
    if size is None and fraction == 1.0:
        return split
    if size is not None and size > len(split):
        raise ValueError(f"train_subset={size}: must be between 1 and {len(split)}, the size of the training split")
    labels = split.labels.numpy()
    kept = stratified_order(labels, seed, SUBSET)[:size]
    # Of each class the order takes rank 0 first, then 1, ...: a smaller quota is a cut at a lower rank.
    ranks = class_ranks(labels, seed, SUBSET)[1]
    counts = np.bincount(labels[kept], minlength=len(classes))
    quota = np.array([round(fraction * int(count)) for count in counts])
    if (emptied := np.flatnonzero((quota == 0) & (counts > 0))).size:
        raise ValueError(f"train_fraction={fraction}: keeps no image of class {classes[emptied[0]]!r}; must be larger")
    return split.take(np.sort(kept[ranks[kept] < quota[labels[kept]]]))


def hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Split off round(fraction * count) images of each class; returns what is left and the held-out part.

    Raises ValueError if `fraction` holds out nothing, or all of a class.
    """
    labels = split.clean_labels.numpy()
    ranks, counts = class_ranks(labels, seed, VALIDATION)[1], np.bincount(labels)
    quota = np.round(fraction * counts).astype(np.int64)
    if not quota.any() or ((quota == counts) & (counts > 0)).any():
        raise ValueError(
            f"validation={fraction}: holds out {quota.sum()} of {len(split)} training images; must leave some of each "
            "class on the training side, and take some"
        )
    held = ranks < quota[labels]
    return split.take(np.flatnonzero(~held)), split.take(np.flatnonzero(held))


def add_label_noise(split: Split, num_classes: int, fraction: float, seed: int) -> Split:
    """Replace round(fraction * N) labels by another class drawn uniformly, once and for all (Table 7).

    An image with a wrong label at a smaller fraction has the same one at a larger fraction. The paper does not say
    whether the noise is symmetric, nor whether it is drawn anew each epoch: symmetric and fixed here.
    """
    count = round(fraction * len(split))
    if count == 0:
        return split
    if num_classes < 2:
        raise ValueError(f"label_noise={fraction}: must be 0 where there is no other class")
    rows, total = split.rows.numpy(), int(split.rows.max()) + 1
    # A stream's first words do not depend on how many are drawn, so any subset sees an image's own word.
    noisy = np.argsort(draw_words(total, seed, NOISY_IMAGES)[rows], kind="stable")[:count]
    step = 1 + (draw_words(total, seed, WRONG_CLASS)[rows[noisy]] % np.uint64(num_classes - 1)).astype(np.int64)
    labels = split.labels.clone()
    labels[noisy] = (labels[noisy] + torch.from_numpy(step)) % num_classes
    return Split(split.images, labels, split.clean_labels, split.rows)
