"""CIFAR-10 and CIFAR-100, from image-parquet shards or the original archive."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor
from torchvision.datasets.utils import check_integrity

from sastc.data.dataset import Dataset, Split
from sastc.data.files import array_digest, copy_folders, decoded_copy, missing, own_folders
from sastc.data.images import LOSSLESS, decode
from sastc.data.shards import first_shards, shard_columns, shard_rows
from sastc.facts import FACTS

# `content_sha256` of the complete originals, training and test images. Their pixels have the published mean and
# deviation to eight digits.
ORIGINAL = {
    "cifar10": {
        "train": "55a61f79a40ece2ceda9fb5f9f7078f6ea2fc4952489cef56682bcf92cfcc260",
        "test": "325704b01eb92e1e2a6215ae6a916bb7db7de054af0c496be1c7be2e0fcfbf5f",
    },
    "cifar100": {
        "train": "6d2a03c47c105e4c34d3a2ff16c2803e8df0e5d6fa0c631e46663a327aeac573",
        "test": "381b7d98ce1e9b98232a8df0db0a22992654c39ff2433270656ab8ace5a45e65",
    },
}


def load_cifar(name: str, root: Path, image_size: int, download: bool) -> Dataset:
    """Load CIFAR-10 or CIFAR-100 from image-parquet shards, else from the original archive.

    A folder named after the data set is preferred to the original archive, and that to a copy in a folder such as
    cifar10-jpeg, so that a lossy copy is never taken for the original by accident. The label is the plain name if
    pixels and labels are those of the complete original, however they were stored (`content_sha256`); else it says how
    they differ.

    Raises FileNotFoundError if there is none, and ValueError if a file is damaged or its columns, labels or image sizes
    are not CIFAR's.
    """
    kind = torchvision.datasets.CIFAR10 if name == "cifar10" else torchvision.datasets.CIFAR100
    own, copies = own_folders(root, name), copy_folders(root, name)
    shards = first_shards(own, "test")
    original = kind.base_folder, kind.filename  # unpacked, packed
    archive = next((place for place in (root, root / name) if any((place / file).exists() for file in original)), None)
    if shards is None and (archive or download):
        return _cifar_archive(name, kind, archive or root, image_size, download)
    shards = shards or first_shards(copies, "test")
    if shards is None:
        missing(
            name,
            [*own, *copies, root / kind.base_folder],
            f"train-*.parquet and test-*.parquet, or {kind.base_folder}/ as the original archive unpacks",
            f"load_dataset({name!r}, download=True) downloads the original",
        )
    return _cifar_parquet(name, *shards, image_size)


def _cifar_parquet(name: str, train: list[Path], test: list[Path], image_size: int) -> Dataset:
    num_classes = FACTS[name].classes
    targets = ("label",) if name == "cifar10" else ("fine_label", "label")
    image, target, names = shard_columns(train + test, ("img", "image"), targets)
    classes = names or tuple(str(i) for i in range(num_classes))
    # Both CIFARs number their classes alphabetically; other names or another order mean another data set.
    if len(classes) != num_classes or (names and list(classes) != sorted(classes)):
        raise ValueError(
            f"{train[0]}: names {len(classes)} classes ({', '.join(classes[:3])}, ...), "
            f"{name} has {num_classes} in alphabetical order"
        )
    folder = train[0].parent

    def build(cache: Path) -> None:
        codings: set[str] = set()
        for split, shards in (("train", train), ("test", test)):
            images, labels = [], []
            for encoded, label in shard_rows(shards, image, target, num_classes):
                where = f"{folder}, {split} image {len(images)}"
                picture, coding = decode(encoded, where)
                if picture.size != (32, 32):
                    raise ValueError(f"{where}: is {picture.width}x{picture.height}, a CIFAR image is 32x32")
                images.append(np.asarray(picture))
                labels.append(label)
                codings.add(coding)
            np.save(cache / f"{split}_images.npy", np.stack(images).transpose(0, 3, 1, 2))
            np.save(cache / f"{split}_labels.npy", np.array(labels, dtype=np.int64))
        (cache / "formats.json").write_text(json.dumps(sorted(codings)))

    cache, files, decoded = decoded_copy(name, folder, train + test, build)
    lossy = set(json.loads((cache / "formats.json").read_text())) - LOSSLESS
    splits = {
        split: Split(*(torch.from_numpy(np.load(cache / f"{split}_{part}.npy")) for part in ("images", "labels")))
        for split in ("train", "test")
    }
    origin = {"source": "image-parquet", "folder": folder.resolve().name}
    provenance = {**origin, "files": files, "decoded_sha256": decoded}
    return _cifar(name, classes, splits, image_size, provenance, f"{'/'.join(sorted(lossy))} copy" if lossy else "")


def content_sha256(images: Tensor, labels: Tensor) -> str:
    """SHA-256 of labelled images, whatever their order and the files they came from.

    An image of `images`, uint8 (N, 3, 32, 32), is written as in CIFAR-10's binary version: a byte of label, from
    `labels`, int64 (N,), then the pixels, red, green, blue. The digest is that of the sorted SHA-256 digests of all of
    them.
    """
    records = zip(labels.tolist(), images.flatten(1).numpy(), strict=True)
    digests = sorted(hashlib.sha256(bytes([label]) + pixels.tobytes()).digest() for label, pixels in records)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _cifar_archive(name: str, kind: Any, root: Path, image_size: int, download: bool) -> Dataset:
    files = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    damaged = next((file for file, md5 in files if not check_integrity(root / kind.base_folder / file, md5)), None)
    packed = root / kind.filename
    if damaged and not download and not check_integrity(packed, kind.tgz_md5):
        path = root / kind.base_folder / damaged if (root / kind.base_folder).exists() else packed
        raise ValueError(
            f"{path}: missing or damaged (its MD5 is not the one torchvision knows); "
            f"remove it and get it again with load_dataset({name!r}, download=True)"
        )
    try:
        # paper: CIFAR-100  released: tests CIFAR-100 students on CIFAR-10's test images, an obvious slip;
        # both splits are CIFAR-100's here, in every variant.
        loaded = {split: kind(root, split == "train", download=damaged is not None) for split in ("train", "test")}
    except (OSError, RuntimeError) as error:
        raise OSError(f"{name}: could not be downloaded to or unpacked in {root} ({error})") from error
    splits = {
        split: Split(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
        for split, part in loaded.items()
    }
    provenance = {
        "source": f"torchvision.datasets.{kind.__name__}",
        "files_md5": dict(files),
        "decoded_sha256": {  # as a decoded copy of shards has them
            f"{split}_{part}.npy": array_digest(getattr(arrays, part).numpy())
            for split, arrays in splits.items()
            for part in ("images", "labels")
        },
    }
    return _cifar(name, tuple(loaded["train"].classes), splits, image_size, provenance, "")


def _cifar(
    name: str,
    classes: tuple[str, ...],
    splits: dict[str, Split],
    image_size: int,
    provenance: dict[str, Any],
    note: str,
) -> Dataset:
    """The data set from images of 32x32; `note` is what the label says of a copy that is not the original."""
    content = {part: content_sha256(split.images, split.labels) for part, split in splits.items()}
    facts, counts, notes = FACTS[name], tuple(map(len, splits.values())), []
    if content != ORIGINAL[name]:
        notes += [note] if note else []
        notes += [f"{counts[0]} + {counts[1]} images only"] if counts != facts.counts else []
        notes = notes or ["not the original's pixels and labels"]
    if image_size != 32:
        size = (image_size, image_size)
        splits = {
            part: Split(F.interpolate(split.images, size, mode="bilinear", antialias=True), split.labels)
            for part, split in splits.items()
        }
    return Dataset(
        name=name,
        label=facts.label + (f" ({', '.join(notes)})" if notes else ""),
        classes=classes,
        train=splits["train"],
        test=splits["test"],
        mean=facts.mean,
        std=facts.std,
        crop_padding=image_size // 8,  # the paper's 4 pixels at 32x32
        flip=True,
        provenance={**provenance, "content_sha256": content},
    )
