"""ImageNet and any set of images in class folders: decoded batch by batch, never held in memory."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sastc.data.dataset import Dataset, Split
from sastc.data.files import (
    HASHED_UP_TO,
    check_name,
    copy_folders,
    decoded_copy,
    find_folder,
    hidden,
    list_digest,
    missing,
    own_folders,
    subfolders,
)
from sastc.data.lazy import Files, LazyImages, Packed
from sastc.data.shards import first_shards, shard_columns, shard_rows
from sastc.facts import FACTS
from sastc.files import sha256

SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}


def load_imagenet(root: Path, image_size: int) -> Dataset:
    """Load ImageNet, lazily, from image-parquet shards or class folders; the validation images are the test split.

    Raises FileNotFoundError if there is neither, and ValueError if a file is damaged or a label is none of the classes.
    """
    places = own_folders(root, "imagenet") + copy_folders(root, "imagenet")
    shards = first_shards(places, "validation", "val", "test")
    if shards is not None:
        return _imagenet_parquet(*shards, image_size)
    expected = "train/<class>/* and val/<class>/*, or train-*.parquet and validation-*.parquet (columns image, label)"
    remedy = "ImageNet must be requested from its authors; see data/README.md"
    return _folder_dataset("imagenet", places, expected, remedy, image_size)


def load_imagefolder(root: Path, image_size: int) -> Dataset:
    """Load any set of images in folders, lazily: train/<class>/* and test/<class>/* or val/<class>/*.

    Raises FileNotFoundError if the folders are not there, and ValueError if the splits have different classes, a class
    has no image, or a name is not UTF-8.
    """
    expected = "train/<class>/* and test/<class>/* or val/<class>/*"
    return _folder_dataset("imagefolder", [root, root / "imagefolder"], expected, "put your images there", image_size)


def _folder_dataset(name: str, places: list[Path], expected: str, remedy: str, image_size: int) -> Dataset:
    folder = find_folder(name, places, lambda place: (place / "train").is_dir(), expected, remedy)
    tests = [folder / split for split in ("val", "validation", "test") if (folder / split).is_dir()]
    if not tests:
        missing(name, [folder], "val/<class>/* or test/<class>/* beside train/", "move a part of the images there")
    (train, train_files, classes), (test, test_files, test_classes) = (
        _folder_split(folder, place, image_size) for place in (folder / "train", tests[0])
    )
    if test_classes != classes:
        odd = sorted(set(classes) ^ set(test_classes))
        raise ValueError(f"{tests[0]}: must have the class folders of train/; differing: {', '.join(odd[:5])}")
    files = {"train": (train, train_files), "test": (test, test_files)}
    sizes = {file: (folder / file).stat().st_size for file in train_files + test_files}
    # Names and sizes are all that is known of a set whose 140 GB would take minutes at each start. An image replaced by
    # one of as many bytes goes unnoticed there, as data/README.md says. Times of files would tell, but differ between
    # copies of the same images, whose records would then be refused.
    digests = {
        f"{part}_listing_sha256": list_digest(f"{file} {sizes[file]}\n" for file in names)
        for part, (_, names) in files.items()
    }
    if sum(sizes.values()) <= HASHED_UP_TO:  # labels and images, whatever their names
        digests |= {
            f"{part}_content_sha256": list_digest(
                f"{label} {sha256(folder / file)}\n" for label, file in zip(split.labels.tolist(), names, strict=True)
            )
            for part, (split, names) in files.items()
        }
    provenance = {"source": "image folders", "folder": folder.resolve().name, **digests}
    return _lazy_dataset(name, classes, train, test, provenance)


def _folder_split(folder: Path, place: Path, image_size: int) -> tuple[Split, list[str], tuple[str, ...]]:
    """The images in the class folders of `place`, their files as paths from `folder`, and the classes."""
    classes = subfolders(place)
    if not classes:
        raise ValueError(f"{place}: must hold one folder of images for each class, has no folders")
    files, labels = [], []
    for label, path in enumerate(classes):
        check_name(path)
        found = _images(path)
        if not found:
            raise ValueError(f"{path}: holds no image ({' '.join(sorted(SUFFIXES))})")
        files += [image.relative_to(folder).as_posix() for image in found]
        labels += [label] * len(found)
    split = Split(LazyImages(Files(folder, files), image_size), torch.tensor(labels))
    return split, files, tuple(path.name for path in classes)


def _images(folder: Path) -> list[Path]:
    """The visible image files below `folder`, sorted."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.is_dir())
    for path in found:
        check_name(path)
    return [path for path in found if not any(map(hidden, path.relative_to(folder).parts))]


def _imagenet_parquet(train: list[Path], test: list[Path], image_size: int) -> Dataset:
    image, label, classes = shard_columns(train + test, ("image", "img"), ("label",))

    def build(cache: Path) -> None:
        # A parquet row cannot be read alone; end to end in one file the same bytes can.
        need, free = sum(shard.stat().st_size for shard in train + test), shutil.disk_usage(cache).free
        if need > free:
            raise OSError(f"needs {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
        for split, shards in (("train", train), ("test", test)):
            sizes, labels = [0], []
            with (cache / f"{split}.bin").open("wb") as blob:
                for encoded, target in shard_rows(shards, image, label, len(classes) or None):
                    blob.write(encoded)
                    sizes.append(len(encoded))
                    labels.append(target)
            np.save(cache / f"{split}_offsets.npy", np.cumsum(sizes, dtype=np.int64))
            np.save(cache / f"{split}_labels.npy", np.array(labels, dtype=np.int64))

    folder = train[0].parent
    cache, files, _ = decoded_copy("imagenet", folder, train + test, build)
    splits = []
    for split in ("train", "test"):
        offsets, labels = (np.load(cache / f"{split}_{part}.npy") for part in ("offsets", "labels"))
        path = cache / f"{split}.bin"
        packed = Packed(path, np.memmap(path, dtype=np.uint8, mode="r"), offsets)
        splits.append(Split(LazyImages(packed, image_size), torch.from_numpy(labels)))
    classes = classes or tuple(str(i) for i in range(int(max(split.labels.max() for split in splits)) + 1))
    provenance = {"source": "image-parquet", "folder": folder.resolve().name, "files": files}
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
