"""Figure 3: spike activation maps of the students beside their teacher's class activation map."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion import figures, report
from companion.html import interval, table
from companion.pages.parts import frame
from companion.stats import Difference, difference, family
from sastc.config import METHODS, ConfigError
from sastc.experiments import Experiment
from sastc.labels import LABELS
from sastc.records import Run, RunError

Maps = dict[str, np.ndarray]  # method to (T, H, W); "teacher" to (H, W); "image" to (H, W, C)


def recorded(run: Run) -> list[int]:
    """Places in the test split of the images that a run holds with their maps."""
    measures = run.measures
    return [int(i) for i in measures.get("instance_index", [])] if "instance_image" in measures else []


def layers(run: Run) -> list[str]:
    """Student layers whose maps a run holds, in order of depth."""
    return [name.removeprefix("sam_") for name in run.measures if name.startswith("sam_")]


def chosen_layer(runs: Sequence[Run], layer: str) -> str:
    """The layer asked for, by default the deepest with a map of 4 × 4 or more; a ConfigError names what is allowed."""
    names = layers(runs[0])
    if not names:
        raise RunError(f"{runs[0].path} holds no spike activation maps: run it again with {runs[0].config.command}")
    if layer and layer not in names:
        raise ConfigError(f"layer={layer!r}: must be one of {', '.join(names)}")
    sizes = {name: min(runs[0].measures[f"sam_{name}"].shape[-2:]) for name in names}
    return layer or ([name for name in names if sizes[name] >= 4] or names)[-1]


def students(plan: Experiment, results: str | Path = "results") -> list[Run]:
    """The recorded runs of the first student, teacher, T and seed, one a method, that hold maps."""
    runs = [r for r in report.one_of_each(plan, results) if layers(r)]
    return sorted(runs, key=lambda run: METHODS.index(run.config.method))


def teacher_of(runs: Sequence[Run], results: str | Path = "results") -> Run | None:
    """The runs' recorded teacher."""
    configs = [c for run in runs if (c := run.config.teacher_config())]
    return report.recorded(configs[:1], results)[0] if configs else None


def maps_of(
    image: int, layer: str, runs: Sequence[Run], teacher: Run | None, data: str | Path = "data"
) -> tuple[Maps, str, int]:
    """Maps of one test image, its class's name and its class: recorded ones, or computed from the runs' weights.

    Raises
    ------
    RunError
        The image is not recorded and a run has no weights at hand; the message names the recorded images.
    """
    if all(image in recorded(run) for run in [*runs, *([teacher] if teacher else [])]):
        return _recorded(image, layer, runs, teacher)
    missing = [r for r in [*runs, *([teacher] if teacher else [])] if not (r.path / "weights.pt").exists()]
    if missing:
        places = ", ".join(map(str, recorded(runs[0])))
        raise RunError(
            f"image={image}: must be one of the recorded {places}, since {missing[0].name} has no weights.pt to "
            f"compute others with; {missing[0].config.command} --force makes it"
        )
    return _computed(image, layer, runs, teacher, data)


def _recorded(image: int, layer: str, runs: Sequence[Run], teacher: Run | None) -> tuple[Maps, str, int]:
    maps: Maps = {}
    for run in runs:
        measures = run.measures
        place = recorded(run).index(image)
        maps[run.config.method] = measures[f"sam_{layer}"][place]
    maps["image"] = measures["instance_image"][place].transpose(1, 2, 0)
    if teacher:
        maps["teacher"] = teacher.measures["cam"][recorded(teacher).index(image)]
    label = int(measures["instance_label"][place])
    return maps, str(measures["class_names"][label]), label


def _computed(
    image: int, layer: str, runs: Sequence[Run], teacher: Run | None, data: str | Path
) -> tuple[Maps, str, int]:
    import torch

    from sastc.build import dataset as _dataset
    from sastc.build import load_model
    from sastc.data import epoch_batches
    from sastc.sam import class_activation_map, spike_activation_map

    dataset = _dataset(runs[0].config, data)
    if not 0 <= image < len(dataset.test):
        raise ConfigError(f"image={image}: must be in 0 ... {len(dataset.test) - 1}, the places of the test split")
    part = replace(dataset, test=dataset.test.take(torch.tensor([image])))
    options = dict(train=False, seed=0, epoch=0, drop_last=False, device="cpu")
    x, y, _ = next(iter(epoch_batches(part, "test", 1, **options)))
    maps = {r.config.method: spike_activation_map(load_model(r, data=data), x, layer=layer)[:, 0].numpy() for r in runs}
    if teacher:
        maps["teacher"] = class_activation_map(load_model(teacher, data=data), x)[0].numpy()
    stored = part.test.images
    seen = 255 * (x[0] - x[0].min()) / (x[0].max() - x[0].min())  # for files that are read when asked for
    picture = stored[0] if isinstance(stored, torch.Tensor) else seen
    maps["image"] = picture.numpy().astype(np.uint8).transpose(1, 2, 0)
    return maps, str(dataset.classes[int(y)]), int(y)


def _stretched(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map brought to the image's size and to [0, 1], see :func:`sastc.sam.heatmap`."""
    import torch

    from sastc.sam import heatmap

    return heatmap(torch.as_tensor(picture, dtype=torch.float32)[None], size)[0].numpy()


def grid(shown: Sequence[tuple[Maps, str, int]]) -> Figure:
    """A block of rows an image: the image, the teacher's map, and the students' by method and time step.

    Of methods and steps the more numerous go across.
    """
    plt = figures.plt
    methods = [m for m in METHODS if m in shown[0][0]]
    steps = len(shown[0][0][methods[0]])
    rows, columns = sorted((len(methods), steps))
    side = min(1.15, figures.WIDTH / (2 + columns))
    size = side * (2 + columns), (side + 0.2) * rows * len(shown)
    drawing, axes = plt.subplots(rows * len(shown), 2 + columns, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for (maps, name, _), block in zip(shown, np.split(axes, len(shown)), strict=True):
        gray = maps["image"].mean(-1)
        one_channel = dict(cmap="gray", vmin=0, vmax=255) if maps["image"].shape[-1] == 1 else {}
        block[0][0].imshow(maps["image"].squeeze(), **one_channel)
        block[0][0].set_title(f"image: {name}", fontsize=7)
        if "teacher" in maps:
            _overlay(block[0][1], gray, maps["teacher"])
            block[0][1].set_title("teacher's CAM", fontsize=7)
        students = block[:, 2:] if columns == len(methods) else block[:, 2:].T  # (steps, methods)
        for line, method in zip(students.T, methods, strict=True):
            for t, picture in enumerate(maps[method]):
                _overlay(line[t], gray, picture)
                line[t].set_title(f"{LABELS[method]}, t = {t + 1}", fontsize=7)
    return drawing


def _overlay(axis, gray: np.ndarray, picture: np.ndarray) -> None:
    """A map over the image in gray: both can be seen, and the map's lightness rises with its value."""
    axis.imshow(gray, cmap="gray", vmin=0, vmax=255)
    axis.imshow(_stretched(picture, gray.shape), cmap="inferno", alpha=0.65, vmin=0, vmax=1)


def correlation(student: np.ndarray, teacher: np.ndarray) -> float:
    """Pearson correlation of a map summed over time (T, H, W) with the teacher's (H', W'), at the larger size."""
    sizes = [student.shape[-2:], teacher.shape]
    size = tuple(int(max(s[i] for s in sizes)) for i in (0, 1))
    one, other = (_stretched(m, size).ravel() for m in (student.sum(0), teacher))
    return float(np.corrcoef(one, other)[0, 1]) if one.std() > 0 and other.std() > 0 else np.nan


def likeness(plan: Experiment, results: str | Path = "results", layer: str = "") -> pd.DataFrame:
    """For every run: mean correlation over its recorded images of its summed map with the teacher's CAM."""
    return likeness_of(frame(plan, results), layer)


def likeness_of(runs: pd.DataFrame, layer: str = "") -> pd.DataFrame:
    """The same of the runs of :func:`companion.pages.parts.frame`; teachers lie beside them."""
    rows = []
    for row in runs[runs.complete].itertuples():
        run = Run(row.path)
        teacher = teacher_of([run], run.path.parents[1])
        if teacher is None or not layers(run) or "cam" not in teacher.measures:
            continue
        maps = run.measures[f"sam_{chosen_layer([run], layer)}"]
        cams = dict(zip(recorded(teacher), teacher.measures["cam"], strict=True))
        values = [correlation(m, cams[i]) for i, m in zip(recorded(run), maps, strict=True) if i in cams]
        known = [v for v in values if np.isfinite(v)]
        mean = float(np.mean(known)) if known else np.nan
        rows.append(
            dict(
                method=row.method,
                seed=row.seed,
                teacher_seed=row.teacher_seed,
                data_seed=row.data_seed,
                run=row.run,
                images=len(known),
                correlation=mean,
                complete=True,
            )
        )
    names = ["method", "seed", "teacher_seed", "data_seed", "run", "images", "correlation", "complete"]
    return pd.DataFrame(rows, columns=names)


def differences(values: pd.DataFrame) -> dict[str, Difference]:
    """SASTC's likeness less every other method's, over seeds; one family."""
    others = [m for m in METHODS[:-1] if m in set(values.method)]
    return dict(zip(others, family(difference(values, "sastc", m, value="correlation") for m in others), strict=True))


def likeness_table(values: pd.DataFrame, place: str) -> str:
    """HTML table: likeness to the teacher's map by method, and SASTC less each other method over seeds.

    `place` is :func:`companion.pages.parts.place`.
    """
    means, gaps = values.groupby("method").correlation.agg(["mean", "size"]), differences(values)
    rows = pd.DataFrame(
        [
            dict(
                method=m,
                correlation=means.loc[m, "mean"],
                seeds=int(means.loc[m, "size"]),
                difference=gaps.get(m, Difference()),
            )
            for m in METHODS
            if m in means.index
        ]
    )
    columns = {
        "method": lambda r: LABELS[r.method],
        "mean correlation": "correlation",
        "seeds": "seeds",
        "SASTC minus this": lambda r: "–" if r.method == "sastc" else interval(r.difference),
    }
    caption = "Correlation of the map summed over time with the teacher's class activation map, over recorded images. "
    caption += place
    return table(rows, caption, "sam-likeness", columns)


def sentences(values: pd.DataFrame) -> list[str]:
    """What came out, computed."""
    if values.empty:
        return ["No run with maps and a teacher is recorded."]
    means = values.groupby("method").correlation.mean().dropna().sort_values(ascending=False)
    if means.empty:
        return ["All maps are constant: nothing to compare."]
    names = ", ".join(f"{LABELS[m]} {v:.2f}" for m, v in means.items())
    images = int(values.images.max())
    n = set(values.groupby("method").run.nunique())
    of = f"mean over {images} images and {report.span(n)} seed{'s' * (n != {1})}"
    out = [f"Correlation with the teacher's map, {of}: {names}.".replace("-", "−")]
    for other, d in differences(values).items():
        if d.n:
            out.append(f"SASTC minus {LABELS[other]}: {d.words()} (n={d.n}: {d.judgement}).")
    return out
