"""Whether a training sees the same pixels and labels in two data sets, however these are named and stored."""

import json
from typing import Any

from sastc.data.dataset import Dataset

# An earlier record may lack some of these: what both sides have is compared.
PIXELS = {"decoded_sha256", "frames_sha256", "data_sha256", "train_content_sha256", "test_content_sha256"}
FILES = {"files", "files_md5", "train_listing_sha256", "test_listing_sha256"}  # weaker: of names and containers
NAMES = {"name", "source"}
# Settings of the draw; `train_rows_sha256` and the like say what was drawn.
DRAWING = {"data_seed", "train_subset", "train_fraction", "label_noise"}
DRAWN = {"train_images", "test_images", "train_rows_sha256", "noisy_images", "noisy_rows_and_labels_sha256"}
DRAWN |= {"validation", "frames_sha256", "steps", "binning"}


def facts(dataset: Dataset) -> dict[str, Any]:
    """What a record says of its data."""
    return {"name": dataset.label, "classes": dataset.num_classes, **dataset.provenance}


def differences(recorded: dict[str, Any], now: dict[str, Any], whole: bool = False) -> list[str]:
    """Names of the facts in which two data sets differ; none if a training sees the same in both.

    `recorded` and `now` are of :func:`facts`, the first as JSON gives it back. `whole` compares the stored sets,
    whatever part of them is drawn.
    """
    recorded, now = _comparable(recorded), _comparable(now)
    ignored = DRAWING | {"folder"} | (DRAWN if whole else set())
    both = [name for name in now if name in recorded and name not in ignored]
    if not PIXELS.isdisjoint(both):
        ignored |= FILES | NAMES
    elif not FILES.isdisjoint(both):
        ignored |= NAMES
    return [name for name in both if name not in ignored and recorded[name] != now[name]]


def _comparable(found: dict[str, Any]) -> dict[str, Any]:
    """Facts without those that may differ between equal pixels: file names, and files beside the arrays."""
    found = json.loads(json.dumps(found, default=str))
    for name in PIXELS & found.keys():
        if isinstance(found[name], dict):
            found[name] = {file: digest for file, digest in found[name].items() if file.endswith(".npy")}
    if isinstance(found.get("files"), dict):
        found["files"] = list(found["files"].values())
    return found
