"""CIFAR-10 and CIFAR-100, from image-parquet shards or the original archive."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from numpy.typing import NDArray
from torch import Tensor
from torchvision.datasets.utils import check_integrity

from sastc.data.dataset import Dataset, Split
from sastc.data.files import array_digest, cache_folder, cached, file_digests, missing, subfolders
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

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If a file is damaged or its columns, labels or image sizes are not CIFAR's.
    """
    kind = torchvision.datasets.CIFAR10 if name == "cifar10" else torchvision.datasets.CIFAR100
    own = [root / name, *subfolders(root / name)]
    copies = [root, *(folder for folder in subfolders(root) if folder.name.startswith((f"{name}-", f"{name}_")))]
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
    return _cifar_parquet(name, root, *shards, image_size)


def _cifar_parquet(name: str, root: Path, train: list[Path], test: list[Path], image_size: int) -> Dataset:
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

    def build(folder: Path) -> None:
        formats: set[str] = set()
        for split, shards in (("train", train), ("test", test)):
            images, labels = [], []
            for encoded, label in shard_rows(shards, image, target, num_classes):
                images.append(_decode(encoded, f"{shards[0].parent}, {split} image {len(images)}", formats))
                labels.append(label)
            np.save(folder / f"{split}_images.npy", np.stack(images).transpose(0, 3, 1, 2))
            np.save(folder / f"{split}_labels.npy", np.array(labels, dtype=np.int64))
        (folder / "formats.json").write_text(json.dumps(sorted(formats)))

    folder = cache_folder(name, train[0].parent)
    source = file_digests(train + test, folder)
    manifest = cached(folder, source, build)
    lossy = set(json.loads((folder / "formats.json").read_text())) - LOSSLESS
    arrays = [
        torch.from_numpy(np.ascontiguousarray(np.load(folder / f"{split}_{part}.npy", allow_pickle=False)))
        for split in ("train", "test")
        for part in ("images", "labels")
    ]
    provenance = {
        "source": "image-parquet",
        "folder": train[0].parent.resolve().name,
        "files": {file: entry["sha256"] for file, entry in source.items()},
        "decoded_sha256": {file: entry["sha256"] for file, entry in manifest["files"].items()},
    }
    return _cifar(name, classes, arrays, image_size, provenance, f"{'/'.join(sorted(lossy))} copy" if lossy else "")


def _decode(encoded: bytes, where: str, formats: set[str]) -> NDArray[np.uint8]:
    """Decode a CIFAR image to (32, 32, 3) and add its coding to `formats`."""
    image, coding = decode(encoded, where)
    if image.size != (32, 32):
        raise ValueError(f"{where}: is {image.width}x{image.height}, a CIFAR image is 32x32")
    formats.add(coding)
    return np.asarray(image)


def content_sha256(images: Tensor, labels: Tensor) -> str:
    """SHA-256 of labelled images, whatever their order and the files they came from.

    An image is written as in CIFAR-10's binary version: a byte of label, then the pixels, red, green, blue. The digest
    is that of the sorted SHA-256 digests of all of them.

    Parameters
    ----------
    images : Tensor
        uint8, (N, 3, 32, 32).
    labels : Tensor
        int64, (N,), 0 to 255; the fine ones of CIFAR-100.
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
        train, test = (kind(root, train=part, download=damaged is not None) for part in (True, False))
    except (OSError, RuntimeError) as error:
        raise OSError(f"{name}: could not be downloaded to or unpacked in {root} ({error})") from error
    arrays = [
        array
        for split in (train, test)
        for array in (torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(split.targets))
    ]
    names = ("train_images", "train_labels", "test_images", "test_labels")  # as a decoded copy of shards has them
    provenance = {
        "source": f"torchvision.datasets.{kind.__name__}",
        "files_md5": dict(files),
        "decoded_sha256": {f"{n}.npy": array_digest(a.numpy()) for n, a in zip(names, arrays, strict=True)},
    }
    return _cifar(name, tuple(train.classes), arrays, image_size, provenance, "")


def _cifar(
    name: str, classes: tuple[str, ...], arrays: list[Tensor], image_size: int, provenance: dict[str, Any], note: str
) -> Dataset:
    content = {"train": content_sha256(*arrays[:2]), "test": content_sha256(*arrays[2:])}
    facts, counts, notes = FACTS[name], (len(arrays[1]), len(arrays[3])), []
    if content != ORIGINAL[name]:
        notes += [note] if note else []
        notes += [f"{counts[0]} + {counts[1]} images only"] if counts != facts.counts else []
        notes = notes or ["not the original's pixels and labels"]
    if image_size != 32:
        arrays[::2] = (
            F.interpolate(images, (image_size, image_size), mode="bilinear", antialias=True) for images in arrays[::2]
        )
    return Dataset(
        name=name,
        label=facts.label + (f" ({', '.join(notes)})" if notes else ""),
        classes=classes,
        train=Split(arrays[0], arrays[1]),
        test=Split(arrays[2], arrays[3]),
        mean=facts.mean,
        std=facts.std,
        crop_padding=image_size // 8,  # the paper's 4 pixels at 32x32
        flip=True,
        provenance={**provenance, "content_sha256": content},
    )
