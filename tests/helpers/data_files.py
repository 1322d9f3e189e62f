"""Small data on the disk, and short ways to look at batches, for the tests of `sastc.data`."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from sastc.data import epoch_batches

REAL = Path(os.environ.get("SASTC_DATA") or "no-data")
ANIMALS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def batches(dataset, split="train", size=4, *, train=True, seed=0, epoch=0, drop_last=False, **options):
    options = {"device": "cpu", **options}
    chosen = dict(train=train, seed=seed, epoch=epoch, drop_last=drop_last)
    return list(epoch_batches(dataset, split, size, **chosen, **options))


def joined(parts):
    return [torch.cat(column) for column in zip(*parts, strict=True)]


def same(left, right) -> bool:
    pairs = zip(joined(left), joined(right), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def encode(pixels, kind="PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def photo(seed, height=32, width=32):
    """A smooth random picture, so that resizing and JPEG have something to do."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def write_shard(path, images, labels, *, image="img", label="label", names=ANIMALS, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({image: [{"bytes": cell, "path": None} for cell in images], **columns, label: labels})
    if names:
        features = {image: {"_type": "Image"}, label: {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=3)


def as_images(tensor):
    return tensor.permute(0, 2, 3, 1).numpy()
