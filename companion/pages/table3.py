"""Table 3, and the proof that its pipeline runs: real photographs in class folders and in Parquet shards."""

import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from companion.html import download, rows_table
from companion.pages import grid, parts
from sastc.config import RunConfig
from sastc.experiments import Experiment
from sastc.labels import LABELS
from sastc.records import Run

PHOTOS = ("china", "flower")  # scikit-learn's sample photographs, 427 x 640
TILE = 32  # pixels


def published() -> pd.DataFrame:
    """The paper's Table 3, with the columns of Table 2."""
    table = parts.paper("imagenet_accuracy").rename(columns={"architecture": "student"})
    names = ("dataset", "student", "teacher", "method")
    return table.assign(**{name: [grid.FIELDS.get(value, value) for value in table[name]] for name in names})


def wanted(plan: Experiment) -> Iterator[RunConfig]:
    """A run for each cell of Table 3 at the plan's scale."""
    for row in published().itertuples():
        if row.method != "teacher":
            yield plan.runs[0].replace(student=row.student, teacher=row.teacher or "resnet34", method=row.method)


def table(plan: Experiment, results: str | Path = "results") -> str:
    """Table 3 as HTML: ours on ImageNet, or that it is not run, and the paper's value."""
    runs = collect(plan, results)
    caption = "Test accuracy in percent on ImageNet after the last epoch: ours, and the paper's below."
    return _table(runs[runs.dataset == "imagenet"], caption, "table3", printed=True)


def smoke_table(runs: pd.DataFrame) -> str:
    """The same networks on other images, without the paper's values; '' where there are none."""
    others = runs[runs.dataset != "imagenet"]
    if others.empty:
        return ""
    data = ", ".join(sorted({LABELS[d] for d in others.dataset}))
    caption = f"Smoke test: the same networks, narrow, on {data}. Test accuracy in percent; not to be compared."
    return _table(others, caption, "table3-smoke-test", printed=False)


def _table(runs: pd.DataFrame, caption: str, file: str, printed: bool) -> str:
    body, frame = [], []
    for row in published().itertuples():
        own = runs[runs.method == row.method]
        own = own[own.student == row.student] if row.method != "teacher" else own
        same = grid.subtractable(own, row.dataset)
        name = LABELS[row.student] if row.method == "teacher" else f"{LABELS[row.student]} (spiking)"
        steps = "–" if row.method == "teacher" else row.timesteps
        ours = grid.cell(own, row.accuracy if printed else None, same)
        ours = ours if len(own) else f'<span class="seeds">not run</span>{ours}'
        body.append([name, LABELS[row.method], str(steps), ours])
        done = own[own.complete]
        numbers = dict(accuracy=done.accuracy.mean(), n=len(done), runs=" ".join(done.run))
        keys = dict(student=row.student, teacher=row.teacher, method=row.method, timesteps=row.timesteps)
        frame.append(keys | numbers | (dict(paper=row.accuracy) if printed else {}))
    return rows_table(caption, ("network", "method", "T", "accuracy (%)"), body, file, frame)


def collect(plan: Experiment, results: str | Path = "results") -> pd.DataFrame:
    """The page's runs and teachers, and cells that are not run."""
    return grid.filled(plan, wanted(plan), results)


# Proof on real photographs


def tiles() -> Iterator[tuple[str, str, int, bytes]]:
    """Split, photograph, number and JPEG of every 32x32 tile of two photographs; the right quarter is the test."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    for name in PHOTOS:
        photo = load_sample_image(f"{name}.jpg")
        rows, columns = photo.shape[0] // TILE, photo.shape[1] // TILE
        for i, (r, c) in enumerate(np.ndindex(rows, columns)):
            tile = photo[r * TILE : (r + 1) * TILE, c * TILE : (c + 1) * TILE]
            file = io.BytesIO()
            Image.fromarray(tile).save(file, "JPEG", quality=90)
            yield "test" if c >= 0.75 * columns else "train", name, i, file.getvalue()


def write_folders(root: Path) -> None:
    """Write the tiles as ``root/train/<class>/*.jpg`` and ``root/test/<class>/*.jpg``."""
    for split, name, i, content in tiles():
        path = root / split / name / f"{i:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_shards(root: Path) -> None:
    """Write the same as ``root/imagenet/<split>-00000-of-00001.parquet``, in the form of ImageNet's shards."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (root / "imagenet").mkdir(parents=True, exist_ok=True)
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(PHOTOS)}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    found = sorted(tiles())
    for split, file in (("train", "train"), ("test", "validation")):
        chosen = [(PHOTOS.index(name), content) for s, name, _, content in found if s == split]
        columns = {"image": [{"bytes": c, "path": None} for _, c in chosen], "label": [label for label, _ in chosen]}
        shard = pa.table(columns).replace_schema_metadata(metadata)
        pq.write_table(shard, root / "imagenet" / f"{file}-00000-of-00001.parquet")


@dataclasses.dataclass(frozen=True)
class Proof:
    """What became of the pipeline on real photographs."""

    runs: tuple[Run, ...]  # teacher, student from class folders
    images: tuple[int, int]
    same: bool  # shards and folders gave the same batches


def prove(plan: Experiment, folder: Path, **changes: Any) -> Proof:
    """Train a teacher and a SASTC student with ImageNet's loader, from JPEG files of real photographs in class folders.

    Student, teacher and T are those of the plan's first run, at the quick scale on images of 32x32. Data and records
    go below `folder`. Shards of the same files are read by the other loader, and their batches, augmentation included,
    compared.
    """
    import torch

    import sastc
    from sastc.data import epoch_batches

    write_folders(folder / "folders")
    write_shards(folder / "shards")
    first = plan.runs[0]
    pair = dict(student=first.student, teacher=first.teacher, timesteps=first.timesteps, method="sastc")
    settings = dict(dataset="imagefolder", scale="quick", image_size=TILE, batch_size=32, beta=5.0) | pair | changes
    config = RunConfig(**settings)
    run = sastc.run(config, results=folder / "results", data=folder / "folders", progress=False)
    teacher = Run(run.path.with_name(run.provenance["teacher"]["run"]))
    with _cache(folder / "cache"):
        loaded = [
            sastc.load_dataset(name, root=folder / place, image_size=TILE)
            for name, place in (("imagefolder", "folders"), ("imagenet", "shards"))
        ]
    same = True
    for split in ("train", "test"):
        options = dict(train=split == "train", seed=0, epoch=0, drop_last=False, device="cpu")
        both = zip(*(epoch_batches(data, split, 64, **options) for data in loaded), strict=True)
        same &= all(torch.equal(a, b) for left, right in both for a, b in zip(left[:2], right[:2], strict=True))
    return Proof((teacher, run), (len(loaded[0].train), len(loaded[0].test)), bool(same))


@contextlib.contextmanager
def _cache(folder: Path) -> Iterator[None]:
    """Copies of these shards end with them, and do not stay in the user's cache folder."""
    before = os.environ.get("SASTC_CACHE")
    os.environ["SASTC_CACHE"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("SASTC_CACHE")
        if before is not None:
            os.environ["SASTC_CACHE"] = before


def proof_table(proof: Proof) -> str:
    """HTML table of the two runs; each one's settings and history as files, since no page of its own stands for it."""
    body = []
    for run in proof.runs:
        config, metrics = run.config, run.metrics
        name = LABELS[config.teacher] if config.method == "teacher" else f"{LABELS[config.student]}, SASTC"
        files = " ".join(
            download(run.read(file), f"{run.name}-{file}", "text/plain", file)
            for file in ("config.json", "provenance.json", "history.csv")
        )
        body.append([name, f"{metrics['accuracy']:.2f}", str(metrics["epochs"]), files])
    caption = (
        f"{proof.images[0]} tiles to train, {proof.images[1]} to test, {len(PHOTOS)} classes (chance: "
        f"{100 / len(PHOTOS):.0f} %). "
        f"Shards and class folders gave the same batches: {parts.text(proof.same)}."
    )
    return rows_table(caption, ("trained", "test accuracy (%)", "epochs", "files"), body)
