"""Recorded runs as compact JSON for the explorer.

An array is ``{"shape": [...], "type": "u2" | "u1", "low": l, "high": h, "log": false, "data": base64}``. The bytes are
little-endian codes c from 0 to C (65534 or 254); the value is ``l + c (h - l) / C``, or its exponential where ``log``
is true. The code after C stands for nan. The error is at most half a code: below ``(h - l) / 131068`` for u2. Weights
span less than 1, so theirs is below 0.00001; distances are coded by their logarithm, with a relative error below 0.0001
for ranges up to e^13. Both are far below the two or three digits that are shown. ``u1`` is used for what is only
painted: images, and similarity matrices, of which the upper triangle is kept, row by row, sorted by class. A teacher
that sees each frame has one for each time step.

An array by epoch also has ``"epochs": [...]``, the one-based epochs that it holds. Where a run would be larger than its
part of the page, epochs are left out evenly, first of the arrays by class and by image, and similarity matrices keep
fewer images. The explorer's slider stops at the epochs that are kept. In a page, ``data`` is a place in one list of
such strings, so that what runs share, the test images and a teacher's similarity matrices, is there once.
"""

import base64
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sastc.labels import LABELS, SCALE_LABELS, run_title
from sastc.records import Run, RunError

THUMBNAIL = 48  # pixels at most
MATRICES = 1 / 3  # of a run's bytes, for similarity matrices, at most
MAIN = ("dataset", "student", "teacher", "method", "timesteps", "variant", "scale", "seed")  # chosen by name
LESS = ("epochs", "batch_size", "mlp_dim", "stm_batches", "probe_batches")  # of the other settings named last
# Arrays by epoch that keep the same epochs, and the share that they may take of the room left before them.
BY_EPOCH = ((("attention", "distance", "cka"), 0.7), (("attention_instance",), 0.5), (("attention_class",), 1.0))


def pack_page(runs: Sequence[Run], budget: int, examples: Sequence[dict[str, Any]] = ()) -> str:
    """JSON of all runs in about `budget` bytes; each run has as many as leave enough for the others."""
    measures = [run.measures if run.has("measures.npz") else None for run in runs]
    share = 2 * min(budget, 8 * budget // max(len(runs), 1))
    while True:
        share //= 2
        table: dict[str, int] = {}
        packed = [pack_run(run, share, arrays) for run, arrays in zip(runs, measures, strict=True)]
        for array in (array for run in packed for array in run["arrays"].values()):
            array["data"] = table.setdefault(array["data"], len(table))
        name_settings(packed)
        page = {"format": 3, "runs": packed, "examples": list(examples), "data": list(table)}
        text = json.dumps(page, separators=(",", ":"), allow_nan=False)
        if len(text) < 1.1 * budget or share <= 10_000:
            return text


def name_settings(packed: Sequence[dict[str, Any]]) -> None:
    """Of the settings by which a run is chosen, keep those in which it differs from others on the same data."""
    for dataset in {run["dataset"] for run in packed}:
        runs = [run for run in packed if run["dataset"] == dataset]
        common = set.intersection(*(set(run["settings"]) for run in runs)) if len(runs) > 1 else set()
        for run in runs:
            own = [setting for setting in run["settings"] if setting not in common]
            run["other"] = ", ".join(own) or ("as preset" if not run["settings"] else "none of its own")
    for run in packed:
        del run["settings"]


def pack_run(run: Run, budget: int, measures: dict[str, np.ndarray] | None = None) -> dict[str, Any]:
    """Everything the explorer shows of one run, in about `budget` bytes of JSON; `measures` are the run's, if read.

    A run that has not recorded an epoch yet has ``"epochs": 0``. Arrays that a run does not have are left out.
    """
    config = run.config
    data = run.provenance["data"]["name"] if run.has("provenance.json") else LABELS[config.dataset]
    others = [a for a in config.arguments if a.split("=")[0] not in MAIN]
    packed = {
        "name": run.name,
        "title": run_title(run),
        "dataset": f"{data}, {SCALE_LABELS[config.scale]}",
        "pair": f"{LABELS[config.student]} & {LABELS[config.teacher]}",
        "timesteps": config.timesteps,
        "variant": config.variant,
        "seed": config.seed,
        "settings": sorted(others, key=lambda a: a.split("=")[0] in LESS),
        "complete": run.complete,
        "epochs": 0,
        "planned": config.epochs,
        "probe": config.probe_batches * config.batch_size,
        "arrays": {},
    }
    if not run.has("measures.npz"):  # before the first epoch
        return packed
    measures = run.measures if measures is None else measures
    attention = measures["attention"]  # (E, T, S, A)
    low, high = config.attention_bounds(attention.shape[-1])
    packed |= {
        "epochs": len(attention),
        "low": low,
        "high": high,
        "student": measures["student_layers"].tolist(),
        "teacher": measures["teacher_layers"].tolist(),
        "accuracy": _accuracy(run)[: len(attention)],
        "classes": [str(name) for name in measures.get("class_names", range(measures["attention_class"].shape[1]))],
        "images": measures["attention_instance"].shape[1],
    }
    for name in ("index", "label"):
        if f"instance_{name}" in measures:  # written when the run ends
            packed[name] = measures[f"instance_{name}"].tolist()
    arrays = _images(measures) | (matrices := _similarities(measures, int(MATRICES * budget)))
    if "instance_logits" in measures:
        arrays["instance_logits"] = encode(measures["instance_logits"])  # (P, T, N)
    room = (budget - sum(len(a["data"]) for a in matrices.values())) * 3 // 4 // 2  # base64; two bytes a value
    for group, share in BY_EPOCH:
        names = [name for name in group if name in measures]
        size = sum(measures[name][0].size for name in names)
        kept = thin(len(attention), int(max(room, 0) * share) // size)
        for name in names:
            encoded = encode(measures[name][kept], log=name == "distance")
            arrays[name] = encoded | {"epochs": [int(e) + 1 for e in kept]}
        room -= len(kept) * size
    return packed | {"arrays": arrays}


def thin(epochs: int, most: int) -> np.ndarray:
    """At most so many epochs (but the last one always), evenly spread, with the last and, from two on, the first."""
    count = min(epochs, max(most, 1))
    return np.linspace(epochs - 1, 0, count).round().astype(int)[::-1]


def encode(values: np.ndarray, kind: str = "u2", log: bool = False) -> dict[str, Any]:
    """Quantise an array, see the module's text; `log` is ignored where a value is not above 0."""
    values = np.asarray(values, np.float64)
    finite = values[np.isfinite(values)]
    log = bool(log and finite.size and finite.min() > 0)
    scaled = np.log(values) if log else values
    finite = np.log(finite) if log else finite
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    top = {"u1": 254, "u2": 65534}[kind]
    step = (high - low) / top or 1.0
    codes = np.where(np.isfinite(scaled), np.nan_to_num((scaled - low) / step, posinf=0, neginf=0).round(), top + 1)
    data = base64.b64encode(codes.astype(f"<{kind}").tobytes()).decode()
    return {"shape": list(values.shape), "type": kind, "low": low, "high": high, "log": log, "data": data}


def _images(measures: dict[str, np.ndarray]) -> dict[str, Any]:
    """Images ``(P, C, H, W)``."""
    if "instance_image" not in measures:
        return {}
    images = measures["instance_image"]
    if images.ndim == 5:  # (P, T, C, H, W), event frames: all that happened, in one picture
        images = images.max(1)
    stride = -(-max(images.shape[-2:]) // THUMBNAIL)
    return {"instance_image": encode(images[..., ::stride, ::stride], "u1")}


def _similarities(measures: dict[str, np.ndarray], budget: int) -> dict[str, Any]:
    """Similarity matrices of the first images, as many as `budget` allows, sorted by class; one array a matrix."""
    if not {"similarity_student", "similarity_teacher", "similarity_label"} <= set(measures):
        return {}
    teachers = measures["similarity_teacher"]  # (A, M, M), or (T, A, M, M) of a teacher that sees each frame
    named = {
        "_".join(["similarity", side, *map(str, index)]): matrices[index]
        for side, matrices in (("student", measures["similarity_student"]), ("teacher", teachers))
        for index in np.ndindex(matrices.shape[:-2])
    }
    most = math.isqrt(budget * 3 // 2 // len(named))  # half of a matrix, in base64
    labels = measures["similarity_label"][: min(teachers.shape[-1], max(most, 8))]
    order = np.argsort(labels, kind="stable")
    upper = np.triu_indices(len(order))
    return {"similarity_label": encode(labels[order])} | {
        name: encode(matrix[np.ix_(order, order)][upper], "u1") for name, matrix in named.items()
    }


def _accuracy(run: Run) -> list[float]:
    """Test accuracy of every epoch so far, in percent; none where the history is missing."""
    try:
        return [round(float(v), 2) for v in run.history["test_accuracy"] if math.isfinite(v)]
    except KeyError:
        return []
    except RunError:
        if run.complete and run.sums is not None:  # a damaged record is an error
            raise
        return []
