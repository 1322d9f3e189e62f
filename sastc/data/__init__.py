"""Data sets: loading, checking, subsets, label noise and batches.

`load_dataset` gives a `Dataset` with two splits; `epoch_batches` iterates over one of them.
"""

import os
from dataclasses import replace
from pathlib import Path

import torch

from sastc.checks import check_integer, check_number, check_one_of
from sastc.data.batches import augment, epoch_batches, normalise, num_batches
from sastc.data.dataset import Dataset, Split
from sastc.data.events import Events, event_rate, events_to_frames, simulate_events, to_events
from sastc.data.files import check_name
from sastc.data.lazy import LazyImages
from sastc.data.subsets import add_label_noise, digest, hold_out, subset
from sastc.facts import DATASETS, EVENT_DATASETS, FACTS
from sastc.fields import choices

__all__ = [
    "DATASETS", "Dataset", "Events", "LazyImages", "Split", "augment", "epoch_batches", "event_rate",
    "events_to_frames", "load_dataset", "normalise", "num_batches", "simulate_events", "to_events",
]  # fmt: skip

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
    validation: float = 0.0,
    download: bool = False,
    timesteps: int | None = None,
    binning: str = "time",
    event_augment: str = "roll",
) -> Dataset:
    """Load a data set, take a part of its training split, then make labels of that part wrong.

    Parameters
    ----------
    name : str
        One of `DATASETS`.
    root : str or Path
        Where the data are; data/README.md says what is looked for. At its default, the environment variable SASTC_DATA
        is used if it is set.
    image_size : int, optional
        Height and width; if left out that of :data:`sastc.facts.FACTS`, such as 32 for CIFAR.
    train_subset : int, optional
        Keep this many training images, classes in proportion.
    train_fraction : float
        Of these keep round(fraction * count) images of each class; in (0, 1].
    label_noise : float
        Fraction of the kept training labels that another class replaces, drawn uniformly; in [0, 1].
    data_seed : int
        Draws subset and noise. With one seed, smaller subsets and sets of wrong labels lie inside larger ones.
    validation : float
        Fraction of each class's training images that becomes the test split, before any subset; in [0, 0.5]. For
        choosing hyper-parameters without the true test images.
    download : bool
        Let torchvision fetch CIFAR if it is not there. Nothing else is ever downloaded.
    timesteps : int
        T, frames into which the events of an event data set are counted; other sets ignore it and what follows.
    binning : {"time", "count"}
        Frames of equal time or of equally many events.
    event_augment : {"none", "shift", "roll"}
        Training augmentation of frames, by a tenth of the size at most: shifted with zeros coming in, or rolled around,
        and mirrored in sets whose mirrored images keep their class. "roll" with mirroring is the recipe of TET (Deng et
        al. 2022).

    Returns
    -------
    Dataset
        `Dataset.train.rows` are the training images used, and labels are wrong where `labels` and `clean_labels`
        differ; `Dataset.provenance` holds the hashes of both.

    Raises
    ------
    ValueError
        For an argument out of range (names field, value and what is allowed) and for damaged files.
    FileNotFoundError
        If the data are not there: where they were looked for and how to get them.
    """
    check_one_of("dataset", name, DATASETS)
    size = check_integer("image_size", FACTS[name].image_size if image_size is None else image_size, 8, 1024)
    data_seed = check_integer("data_seed", data_seed, 0)
    train_subset = None if train_subset is None else check_integer("train_subset", train_subset, 1)
    train_fraction = check_number("train_fraction", train_fraction, 0, 1, open_low=True)
    label_noise = check_number("label_noise", label_noise, 0, 1)
    validation = check_number("validation", validation, 0, 0.5)
    if name in EVENT_DATASETS:
        timesteps = check_integer("timesteps", timesteps, 1, 1024)
        check_one_of("binning", binning, choices("binning"))
        check_one_of("event_augment", event_augment, choices("event_augment"))

    if str(root) == ROOT:
        root = os.environ.get("SASTC_DATA") or root
    try:
        root = Path(root).expanduser()
    except RuntimeError as error:  # ~somebody
        raise ValueError(f"root={str(root)!r}: {error}") from error
    check_name(root)
    # Imported here: torchvision, scikit-learn and pyarrow cost seconds, and each data set needs only one of them.
    if name in ("cifar10", "cifar100"):
        from sastc.data import cifar

        dataset = cifar.load_cifar(name, root, size, download)
    elif name in ("digits", "digits_dvs"):
        from sastc.data import digits

        dataset = digits.load_digits(size) if name == "digits" else digits.load_digits_dvs(size, timesteps, binning)
    elif name in EVENT_DATASETS:
        from sastc.data import event_files

        dataset = event_files.load_recordings(name, root, size, timesteps, binning)
    else:
        from sastc.data import imagenet

        load = imagenet.load_imagenet if name == "imagenet" else imagenet.load_imagefolder
        dataset = load(root, size)

    if name in EVENT_DATASETS:
        moved = 0 if event_augment == "none" else round(size / 10)  # TET: 5 of 48 pixels
        flip = dataset.flip and event_augment != "none"
        dataset = replace(dataset, crop_padding=moved, flip=flip, wrap=event_augment == "roll")

    if validation:
        rest, held = hold_out(dataset.train, validation, data_seed)
        dataset = replace(dataset, train=rest, test=held)
    train = subset(dataset.train, dataset.classes, train_subset, train_fraction, data_seed)
    train = add_label_noise(train, dataset.num_classes, label_noise, data_seed)
    noisy = torch.nonzero(train.labels != train.clean_labels).flatten()
    drawn = {
        "data_seed": data_seed,
        "train_subset": train_subset,
        "train_fraction": train_fraction,
        "label_noise": label_noise,
        "validation": validation,
        "train_images": len(train),
        "test_images": len(dataset.test),
        "train_rows_sha256": digest(train.rows),
        "noisy_images": len(noisy),
        "noisy_rows_and_labels_sha256": digest(train.rows[noisy], train.labels[noisy]),
    }
    return replace(dataset, train=train, provenance={**dataset.provenance, **drawn})
