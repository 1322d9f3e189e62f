"""Data sets: loading, checking, subsets, label noise and batches.

`load_dataset` gives a `Dataset` with two splits; `epoch_batches` iterates over one of them.
"""

import math
import os
from dataclasses import replace
from pathlib import Path

import torch

from sastc.data.batches import augment, epoch_batches, normalise, num_batches
from sastc.data.dataset import Dataset, Split
from sastc.data.lazy import LazyImages
from sastc.data.subsets import add_label_noise, digest, subset

__all__ = [
    "DATASETS",
    "Dataset",
    "LazyImages",
    "Split",
    "augment",
    "epoch_batches",
    "load_dataset",
    "normalise",
    "num_batches",
]

DATASETS = ("digits", "cifar10", "cifar100", "imagenet", "imagefolder")
PLANNED = ("digits_dvs", "dvs_gesture", "dvs_cifar10")
IMAGE_SIZES = {"digits": 16, "cifar10": 32, "cifar100": 32, "imagenet": 224, "imagefolder": 224}
ROOT = "data"


def load_dataset(
    name: str,
    *,
    root: str | Path = ROOT,
    image_size: int | None = None,
    train_subset: int | None = None,
    train_fraction: float = 1.0,
    label_noise: float = 0.0,
    data_seed: int = 0,
    download: bool = False,
) -> Dataset:
    """Load a data set, take a part of its training split, then make labels of that part wrong.

    Parameters
    ----------
    name : str
        One of `DATASETS`.
    root : str or Path
        Where the data are. Left at its default, the environment variable SASTC_DATA goes before it.
        data/README.md says what is looked for.
    image_size : int, optional
        Height and width; 16 for digits, 32 for CIFAR, 224 for the rest when left out.
    train_subset : int, optional
        Keep this many training images, classes in proportion.
    train_fraction : float
        Of these keep round(fraction * count) images of each class; in (0, 1].
    label_noise : float
        Fraction of the kept training labels replaced by another class, uniformly drawn; in [0, 1].
    data_seed : int
        Draws subset and noise. Smaller subsets and noise sets lie inside larger ones of the same seed.
    download : bool
        Let torchvision fetch CIFAR if it is not there. Nothing else is ever downloaded.

    Returns
    -------
    Dataset
        The test split is never touched. `Dataset.train.rows` and the difference between `labels` and
        `clean_labels` are the indices used; `Dataset.provenance` holds their hashes.

    Raises
    ------
    ValueError
        For an argument out of range (names field, value and what is allowed) and for damaged files.
    FileNotFoundError
        If the data are not there: where they were looked for and how to get them.
    """
    if name in PLANNED:
        raise ValueError(f"dataset={name!r}: planned, not implemented yet; available: {', '.join(DATASETS)}")
    if name not in DATASETS:
        raise ValueError(f"dataset={name!r}: must be one of {', '.join(DATASETS)}")
    size = IMAGE_SIZES[name] if image_size is None else image_size
    _check_integer("image_size", size, 8, 1024)
    _check_integer("data_seed", data_seed, 0)
    if train_subset is not None:
        _check_integer("train_subset", train_subset, 1)
    _check_fraction("train_fraction", train_fraction, zero=False)
    _check_fraction("label_noise", label_noise, zero=True)

    if str(root) == ROOT:
        root = os.environ.get("SASTC_DATA") or root
    root = Path(root).expanduser()
    # Imported here: torchvision, scikit-learn and pyarrow cost seconds, and each data set needs only one of them.
    if name == "digits":
        from sastc.data.digits import load_digits

        dataset = load_digits(size)
    elif name in ("cifar10", "cifar100"):
        from sastc.data.cifar import load_cifar

        dataset = load_cifar(name, root, size, download)
    else:
        from sastc.data import imagenet

        load = imagenet.load_imagenet if name == "imagenet" else imagenet.load_imagefolder
        dataset = load(root, size)

    train = subset(dataset.train, dataset.classes, train_subset, train_fraction, data_seed)
    train = add_label_noise(train, dataset.num_classes, label_noise, data_seed)
    noisy = torch.nonzero(train.labels != train.clean_labels).flatten()
    drawn = {
        "data_seed": data_seed,
        "train_subset": train_subset,
        "train_fraction": train_fraction,
        "label_noise": label_noise,
        "train_images": len(train),
        "test_images": len(dataset.test),
        "train_rows_sha256": digest(train.rows),
        "noisy_images": len(noisy),
        "noisy_rows_and_labels_sha256": digest(train.rows[noisy], train.labels[noisy]),
    }
    return replace(dataset, train=train, provenance={**dataset.provenance, **drawn})


def _check_integer(field: str, value: int, low: int, high: int | None = None) -> None:
    allowed = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        raise ValueError(f"{field}={value!r}: must be {allowed}")


def _check_fraction(field: str, value: float, *, zero: bool) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not (0 <= value <= 1) or (value == 0 and not zero):
        raise ValueError(f"{field}={value!r}: must be a number in {'[0, 1]' if zero else '(0, 1]'}")
