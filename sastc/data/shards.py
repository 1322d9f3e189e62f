"""Image-parquet shards as the Hugging Face Hub publishes them: finding, checking and reading them."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm


def first_shards(folders: Sequence[Path], *test_names: str) -> tuple[list[Path], list[Path]] | None:
    """Return the training and the test shards of the first folder that holds training shards, if any does.

    Raises FileNotFoundError if that folder has no test shards under any of `test_names`.
    """
    for folder in folders:
        train, test = find_shards(folder, "train"), find_shards(folder, *test_names)
        if train and not test:
            expected = " or ".join(f"{name}-*.parquet" for name in test_names)
            raise FileNotFoundError(f"{folder}: has {train[0].name} but no test images; expected {expected} beside it")
        if train:
            return train, test
    return None


def find_shards(folder: Path, *splits: str) -> list[Path]:
    """Return the shards `<split>-*.parquet` of the first of `splits` that `folder` holds, in order.

    Raises ValueError if their names say "-of-N" and some of the N are missing.
    """
    for split in splits:
        shards = sorted(folder.glob(f"{split}-*.parquet"))
        if not shards:
            continue
        parts = [re.match(rf"{split}-(\d+)-of-(\d+)", shard.name) for shard in shards]
        if all(parts):
            count = int(parts[0][2])
            wanted = {f"{split}-{i:05d}-of-{count:05d}" for i in range(count)}
            if gone := sorted(wanted - {part[0] for part in parts}):
                raise ValueError(f"{folder}: incomplete: {len(gone)} shards are missing, first {gone[0]}*.parquet")
        return shards
    return []


def shard_columns(
    shards: Sequence[Path], images: Sequence[str], labels: Sequence[str]
) -> tuple[str, str, tuple[str, ...]]:
    """Return the names of the image and the label column, and the class names as far as the shards have them.

    Raises ValueError if a file is no parquet file, lacks the columns, holds something else in them, or differs from the
    first one in any of this.
    """
    first = _columns(shards[0], images, labels)
    for shard in shards[1:]:
        if _columns(shard, images, labels) != first:
            raise ValueError(f"{shard}: its columns or class names differ from those of {shards[0].name}")
    return first


def _columns(shard: Path, images: Sequence[str], labels: Sequence[str]) -> tuple[str, str, tuple[str, ...]]:
    try:
        schema = pq.read_schema(shard)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{shard}: damaged: not a readable parquet file ({error})") from error
    image = next((name for name in images if name in schema.names), None)
    label = next((name for name in labels if name in schema.names), None)
    if image is None or label is None:
        raise ValueError(
            f"{shard}: needs an image column ({' or '.join(images)}) and a label column ({' or '.join(labels)}), "
            f"has {', '.join(schema.names)}"
        )
    allowed = {image: (_is_image, "bytes, or {bytes, path}"), label: (pa.types.is_integer, "integers")}
    for name, (fits, what) in allowed.items():
        if (times := schema.names.count(name)) > 1:
            raise ValueError(f"{shard}: column {name!r} is there {times} times, must be there once")
        kind = schema.field(name).type  # null: no row, or rows of which each will be named
        if not (fits(kind) or pa.types.is_null(kind)):
            raise ValueError(f"{shard}: column {name!r} is of type {kind}, must hold {what}")
    try:
        names = json.loads(schema.metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):  # class names are optional
        names = None
    if names is None:
        return image, label, ()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError(f"{shard}: class names of column {label!r} are {names!r}, must be a list of different names")
    return image, label, tuple(names)


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def shard_rows(shards: Sequence[Path], image: str, label: str, num_classes: int | None) -> Iterator[tuple[bytes, int]]:
    """Iterate over (encoded image, label) of all shards, under a progress bar.

    Raises ValueError if a file is damaged, an image is missing, or a label is outside 0 ... num_classes - 1.
    """
    try:
        shard = shards[0]
        total = sum(pq.read_metadata(shard := path).num_rows for path in shards)
        if total == 0:
            raise ValueError(f"{shard}: holds no images")
        with tqdm(total=total, desc=f"decoding {shards[0].name.split('-')[0]}", unit="image", leave=False) as bar:
            for shard in shards:
                with pq.ParquetFile(shard) as file:
                    batches = file.iter_batches(batch_size=500, columns=[image, label])
                    for row, cells in enumerate(cells for batch in batches for cells in batch.to_pylist()):
                        encoded, target = cells[image], cells[label]
                        if isinstance(encoded, dict):
                            encoded = encoded.get("bytes")
                        if not encoded:
                            raise ValueError(f"{shard}, row {row}: no image bytes in column {image!r}")
                        if target is None or target < 0 or (num_classes and target >= num_classes):
                            allowed = f"0 to {num_classes - 1}" if num_classes else "0 or larger"
                            raise ValueError(f"{shard}, row {row}: {label}={target}, must be {allowed}")
                        yield encoded, target
                        bar.update()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{shard}: damaged: not a readable parquet file ({error})") from error
