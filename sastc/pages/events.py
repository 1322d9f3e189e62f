"""Table 6: event data. What the streams look like, and what students make of them as time steps arrive."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sastc import report
from sastc.config import METHODS
from sastc.data.events import Events, event_rate
from sastc.experiments import Experiment
from sastc.figures import COLOURS, MARKERS, ON_DARK, ON_LIGHT, SEQUENTIAL, SERIES, series
from sastc.labels import LABELS
from sastc.pages import parts
from sastc.records import Run

ON, OFF = SERIES[3], SERIES[5]  # violet and brown, as in the maps of differences


# The streams


def stream_figure(image: np.ndarray, events: Events) -> Figure:
    """An image (H, W), its event stream in space and time, and the rate of events."""
    figure, axes = plt.subplot_mosaic(
        [["image", "scatter", "scatter", "rate", "rate"]], figsize=(7.2, 2.5), width_ratios=[1, 1, 1, 1, 1]
    )
    axes["image"].imshow(image, cmap="gray")
    axes["image"].set(title="image", xticks=[], yticks=[])
    axes["image"].grid(False)
    for polarity, colour, name in ((1, ON, "ON"), (0, OFF, "OFF")):
        chosen = events.p == polarity
        axes["scatter"].scatter(
            events.t[chosen] / 1e3, events.x[chosen], s=3, color=colour, linewidths=0, alpha=0.6, label=name
        )
    axes["scatter"].set(title="events", xlabel="time (ms)", ylabel="column (pixel)")
    time, rates = event_rate(events, 40)
    for row, colour, name in ((1, ON, "ON"), (0, OFF, "OFF")):
        axes["rate"].plot(1e3 * time, rates[row] / 1e3, color=colour, linestyle="-" if row else "--", label=name)
    axes["rate"].set(title="rate", xlabel="time (ms)", ylabel="events (1000 a second)")
    axes["rate"].legend()
    return figure


def frames_figure(frames: np.ndarray) -> Figure:
    """Frames (T, 2, H, W): ON events less OFF events of every step, on one scale."""
    steps = len(frames)
    figure, axes = plt.subplots(1, steps, figsize=(7.2, 7.2 / steps + 0.5), squeeze=False)
    difference = frames[:, 1].astype(float) - frames[:, 0]
    top = max(np.abs(difference).max(), 1)
    for t, (axis, picture) in enumerate(zip(axes[0], difference, strict=True), 1):
        shown = axis.imshow(picture, cmap="PuOr", vmin=-top, vmax=top)
        axis.set(title=f"t = {t}", xticks=[], yticks=[])
        axis.grid(False)
    figure.colorbar(shown, ax=axes, label="ON − OFF", shrink=0.9)
    return figure


# The runs


def collect(plan: Experiment, results: str | Path = "results") -> pd.DataFrame:
    """One row a run, see :func:`sastc.pages.parts.frame`."""
    return parts.frame(plan, results)


def table(runs: pd.DataFrame, recorded: bool) -> str:
    """HTML table: the paper's rows, and below them ours, the simulated data named as such."""
    rows = parts.paper("neuromorphic_accuracy")
    rows = rows.assign(
        method=[LABELS.get(m, m) for m in rows.method], dataset=[LABELS.get(d, d) for d in rows.dataset], links=""
    )
    ours = []
    keys = ["dataset", "student", "teacher", "method", "teacher_input", "timesteps"]
    for (dataset, student, teacher, method, sees, steps), seeds in runs.groupby(keys, sort=False):
        done = seeds[seeds.complete]
        guide = f" & {LABELS[teacher]}" + (", a frame a step" if sees == "per_step" else "")
        ours.append(
            {
                "dataset": LABELS[dataset],
                "method": LABELS[method],
                "citation": "this book",
                "architecture": LABELS[student] + (guide if method != "baseline" else ""),
                "timesteps": steps,
                "accuracy": done.accuracy.mean() if len(done) else np.nan,
                "sd": done.accuracy.std(),
                "n": len(done),
                "links": parts.run_links(done),
            }
        )
    frame = pd.concat([rows, pd.DataFrame(ours)], ignore_index=True)
    caption = "The paper's Table 6, with the results that it cites, and our runs"
    caption += "." if recorded else ", which see simulated events: no row of ours can be compared with one of theirs."

    def accuracy(row) -> str:
        if row.citation != "this book":
            return f'<span class="paper">{row.accuracy:.2f}</span>'
        spread = f" ± {row.sd:.2f}" if np.isfinite(row.sd) else ""
        return f'<span class="ours">{parts.text(row.accuracy)}{spread}</span> {row.links}'

    columns = {"data": "dataset", "method": "method", "from": "citation", "network": "architecture"}
    columns |= {"T": "timesteps", "test accuracy (%)": accuracy}
    return parts.table(frame, caption, "table6", columns)


def sentences(runs: pd.DataFrame) -> list[str]:
    """SASTC against the other methods, and the two ways to show events to a teacher."""
    found = []
    for student in dict.fromkeys(runs.student):
        rows = runs[(runs.student == student) & (runs.teacher_input == "mean_frame") & runs.complete]
        for other in METHODS[:-1]:
            mean, half, n = report.paired_difference(rows, "sastc", other)
            if n:
                width = f", 95 % interval {parts.signed(mean - half)} to {parts.signed(mean + half)}" if n > 1 else ""
                found.append(
                    f"{LABELS[student]}: SASTC less {LABELS[other]} {parts.signed(mean)} points, {n} "
                    f"seed{'s' * (n > 1)}{width}: {report.judge(mean, half, n)}."
                )
        both = runs[(runs.student == student) & (runs.method == "sastc") & runs.complete]
        mean, half, n = parts.difference(both, "accuracy", "teacher_input", "per_step", "mean_frame")
        if n:
            found.append(
                f"{LABELS[student]}: a teacher that sees each step's frame less one that sees the mean frame: "
                f"{parts.signed(mean)} points, {n} seed{'s' * (n > 1)}: {report.judge(mean, half, n)}."
            )
    return found


def arrival_figure(runs: pd.DataFrame) -> Figure:
    """Accuracy of the logits after 1, 2, ... T steps: one panel a student, one line a method, mean over seeds."""
    done = runs[runs.complete & (runs.teacher_input == "mean_frame")]
    students = list(dict.fromkeys(done.student))
    figure, axes = plt.subplots(1, len(students), figsize=(3.6 * len(students), 2.9), sharey=True, squeeze=False)
    for axis, student in zip(axes[0], students, strict=True):
        for method in METHODS:
            paths = done[(done.student == student) & (done.method == method)].path
            curves = [Run(path).measures["accuracy_by_step"] for path in paths]
            if curves:
                steps = np.arange(1, len(curves[0]) + 1)
                look = dict(color=COLOURS[method], marker=MARKERS[method], label=LABELS[method])
                axis.plot(steps, np.mean(curves, 0), **look)
        axis.set(title=LABELS[student], xlabel="time steps seen")
    axes[0][0].set_ylabel("test accuracy (%)")
    axes[0][-1].legend()
    return figure


def confusion_figure(run: Run) -> Figure:
    """Test images by true and predicted class, in percent of the true class."""
    counts, names = run.measures["confusion"], run.measures["class_names"]
    share = 100 * counts / counts.sum(1, keepdims=True).clip(1)
    figure, axis = plt.subplots(figsize=(4.6, 4.0))
    picture = axis.imshow(share, cmap=SEQUENTIAL, vmin=0, vmax=100)
    for (i, j), value in np.ndenumerate(share):
        if value >= 0.5:
            colour = ON_LIGHT if value > 55 else ON_DARK
            axis.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axis.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="predicted class", ylabel="true class")
    axis.grid(False)
    figure.colorbar(picture, ax=axis, label="share of the true class (%)", shrink=0.85)
    return figure


# Attention over time


def attention_figure(run: Run) -> Figure:
    """Mean weight over the time steps: one panel a student layer, one line a teacher layer."""
    measures = run.measures
    weights = measures["attention"][-1]  # (T, S, A)
    figure, axes = plt.subplots(1, weights.shape[1], figsize=(7.2, 2.6), sharey=True, squeeze=False)
    steps = np.arange(1, len(weights) + 1)
    for s, axis in enumerate(axes[0]):
        for a, name in enumerate(measures["teacher_layers"]):
            axis.plot(steps, weights[:, s, a], label=f"teacher {name}", **series(a))
        axis.axhline(1 / weights.shape[2], color="red", linewidth=1)
        axis.set(title=f"student {measures['student_layers'][s]}", xlabel="time step")
    axes[0][0].set_ylabel("attention η")
    axes[0][-1].legend(fontsize=8)
    return figure


def attention_sentence(runs: Sequence[Run]) -> str:
    """How far the weights move over time, beside how far they are from uniform, and over images and seeds."""
    if not runs:
        return "No SASTC run is recorded."
    over_time = [run.measures["attention"][-1].std(0).mean() for run in runs]
    over_images = [run.measures["attention_instance"][-1].std(0).mean() for run in runs]
    from_uniform = []
    for run in runs:
        weights = run.measures["attention"][-1]
        from_uniform.append(np.abs(weights - 1 / weights.shape[-1]).mean())
    last = np.stack([run.measures["attention"][-1] for run in runs])
    over_seeds = f"; between seeds {last.std(0, ddof=1).mean():.4f}" if len(runs) > 1 else ""
    return (
        f"Over {len(runs)} run{'s' * (len(runs) > 1)}, the weights lie {np.mean(from_uniform):.3f} from uniform on "
        f"average. Their standard deviation over time steps is {np.mean(over_time):.4f}; between images "
        f"{np.mean(over_images):.4f}{over_seeds}."
    )
