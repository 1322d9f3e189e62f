"""ImageNet and any set of images in class folders: decoded batch by batch, never held in memory."""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sastc.data.dataset import Dataset, Split
from sastc.data.files import (
    HASHED_UP_TO,
    cache_folder,
    cached,
    check_name,
    file_digests,
    find_folder,
    hidden,
    missing,
    subfolders,
)
from sastc.data.lazy import Files, LazyImages, Packed
from sastc.data.shards import first_shards, shard_columns, shard_rows
from sastc.facts import FACTS
from sastc.files import sha256

SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}


def load_imagenet(root: Path, image_size: int) -> Dataset:
    """Load ImageNet, lazily, from image-parquet shards or class folders; the validation images are the test.

    Raises
    ------
    FileNotFoundError
        If there is neither.
    ValueError
        If a file is damaged, or a label is none of the classes.
    """
    places = [root / "imagenet", *subfolders(root / "imagenet")]
    places += [root, *(folder for folder in subfolders(root) if folder.name.startswith(("imagenet-", "imagenet_")))]
    shards = first_shards(places, "validation", "val", "test")
    if shards is not None:
        return _imagenet_parquet(root, *shards, image_size)
    folder = find_folder(
        "imagenet",
        places,
        _has_train,
        "train/<class>/* and val/<class>/*, or train-*.parquet and validation-*.parquet (columns image, label)",
        "ImageNet must be requested from its authors; see data/README.md",
    )
    return _folder_dataset("imagenet", folder, image_size)


def load_imagefolder(root: Path, image_size: int) -> Dataset:
    """Load any set of images in folders, lazily: train/<class>/* and test/<class>/* or val/<class>/*.

    Raises
    ------
    FileNotFoundError
        If the folders are not there.
    ValueError
        If the splits have different classes, a class has no image, or a name is not UTF-8.
    """
    expected = "train/<class>/* and test/<class>/* or val/<class>/*"
    folder = find_folder("imagefolder", [root, root / "imagefolder"], _has_train, expected, "put your images there")
    return _folder_dataset("imagefolder", folder, image_size)


def _has_train(folder: Path) -> bool:
    return (folder / "train").is_dir()


def _folder_dataset(name: str, folder: Path, image_size: int) -> Dataset:
    test = next((folder / split for split in ("val", "validation", "test") if (folder / split).is_dir()), None)
    if test is None:
        missing(name, [folder], "val/<class>/* or test/<class>/* beside train/", "move a part of the images there")
    splits, names, listings = {}, {}, {}
    for split, place in (("train", folder / "train"), ("test", test)):
        for path in subfolders(place):
            check_name(path)
        names[split] = tuple(path.name for path in subfolders(place))
        if not names[split]:
            raise ValueError(f"{place}: must hold one folder of images for each class, has no folders")
        if names[split] != names["train"]:
            odd = sorted(set(names["train"]) ^ set(names[split]))
            raise ValueError(f"{place}: must have the class folders of train/; differing: {', '.join(odd[:5])}")
        files, labels = [], []
        for label, class_name in enumerate(names[split]):
            found = _images(place / class_name)
            if not found:
                raise ValueError(f"{place / class_name}: holds no image ({' '.join(sorted(SUFFIXES))})")
            files += [path.relative_to(folder).as_posix() for path in found]
            labels += [label] * len(found)
        splits[split] = Split(LazyImages(Files(folder, files), image_size), torch.tensor(labels))
        listings[split] = _listing(folder, files)
    provenance = {
        "source": "image folders",
        "folder": folder.resolve().name,
        "train_listing_sha256": listings["train"],
        "test_listing_sha256": listings["test"],
        **_contents(folder, splits["train"], splits["test"]),
    }
    return _lazy_dataset(name, names["train"], splits["train"], splits["test"], provenance)


def _images(folder: Path) -> list[Path]:
    """The visible image files below `folder`, sorted."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.is_dir())
    for path in found:
        check_name(path)
    return [path for path in found if not any(map(hidden, path.relative_to(folder).parts))]


def _listing(folder: Path, files: Sequence[str]) -> str:
    """SHA-256 of the names and sizes, all that is known of a set whose 140 GB would take minutes at each start.

    An image replaced by one of as many bytes goes unnoticed there, as data/README.md says. Times of files
    would tell, but differ between copies of the same images, whose records would then be refused.
    """
    lines = (f"{name} {(folder / name).stat().st_size}\n" for name in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _contents(folder: Path, train: Split, test: Split) -> dict[str, str]:
    """SHA-256 of each split's labels and images, whatever their names; none of larger sets: see :func:`_listing`."""
    names = [*train.images.encoded.names, *test.images.encoded.names]
    if sum((folder / name).stat().st_size for name in names) > HASHED_UP_TO:
        return {}
    digests = {}
    for name, split in (("train", train), ("test", test)):
        images = zip(split.labels.tolist(), split.images.encoded.names, strict=True)
        lines = (f"{label} {sha256(folder / file)}\n" for label, file in images)
        digests[f"{name}_content_sha256"] = hashlib.sha256("".join(lines).encode()).hexdigest()
    return digests


def _imagenet_parquet(root: Path, train: list[Path], test: list[Path], image_size: int) -> Dataset:
    image, label, classes = shard_columns(train + test, ("image", "img"), ("label",))

    def build(folder: Path) -> None:
        # A parquet row cannot be read alone; end to end in one file the same bytes can.
        need, free = sum(shard.stat().st_size for shard in train + test), shutil.disk_usage(folder).free
        if need > free:
            raise OSError(f"needs {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
        for split, shards in (("train", train), ("test", test)):
            sizes, labels = [0], []
            with (folder / f"{split}.bin").open("wb") as blob:
                for encoded, target in shard_rows(shards, image, label, len(classes) or None):
                    blob.write(encoded)
                    sizes.append(len(encoded))
                    labels.append(target)
            np.save(folder / f"{split}_offsets.npy", np.cumsum(sizes, dtype=np.int64))
            np.save(folder / f"{split}_labels.npy", np.array(labels, dtype=np.int64))

    folder = cache_folder("imagenet", train[0].parent)
    source = file_digests(train + test, folder)
    cached(folder, source, build)
    splits = []
    for split in ("train", "test"):
        offsets, labels = (
            np.load(folder / f"{split}_{part}.npy", allow_pickle=False) for part in ("offsets", "labels")
        )
        path = folder / f"{split}.bin"
        packed = Packed(path, np.memmap(path, dtype=np.uint8, mode="r"), offsets)
        splits.append(Split(LazyImages(packed, image_size), torch.from_numpy(labels)))
    classes = classes or tuple(str(i) for i in range(int(max(split.labels.max() for split in splits)) + 1))
    provenance = {
        "source": "image-parquet",
        "folder": train[0].parent.resolve().name,
        "files": {file: entry["sha256"] for file, entry in source.items()},
    }
    return _lazy_dataset("imagenet", classes, splits[0], splits[1], provenance)


def _lazy_dataset(
    name: str, classes: tuple[str, ...], train: Split, test: Split, provenance: dict[str, Any]
) -> Dataset:
    label = f"ImageFolder ({provenance['folder']})"
    if name == "imagenet":
        counts = len(train), len(test)
        label = "ImageNet" if counts == FACTS[name].counts else f"ImageNet ({counts[0]} + {counts[1]} images only)"
    return Dataset(
        name=name,
        label=label,
        classes=classes,
        train=train,
        test=test,
        mean=FACTS[name].mean,
        std=FACTS[name].std,
        crop_padding=0,  # the random resized crop takes its place: "without any padding operation"
        flip=True,
        provenance=provenance,
    )
