"""Figures of recorded runs, all in one style."""

from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from sastc.attention import attention_bounds
from sastc.config import METHODS
from sastc.labels import LABELS
from sastc.records import Run

# Okabe and Ito's palette, which the colour-blind can tell apart; shape repeats what colour says.
COLOURS = {"baseline": "#7a7a7a", "kd": "#0072b2", "feature_kd": "#e69f00", "sastc": "#d55e00", "teacher": "#000000"}
MARKERS = {"baseline": "s", "kd": "o", "feature_kd": "^", "sastc": "D", "teacher": "*"}
SEQUENTIAL = "cividis"


def style() -> None:
    """Set the house style of all figures: vector output, white ground, readable in print."""
    mpl.rcParams.update(
        {
            "figure.figsize": (7.0, 3.0), "figure.constrained_layout.use": True, "figure.facecolor": "white",
            "font.size": 10, "axes.titlesize": 10, "axes.labelsize": 10, "legend.frameon": False,
            "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6",
            "axes.axisbelow": True, "lines.linewidth": 1.6, "lines.markersize": 4.5,
            "svg.fonttype": "none", "svg.hashsalt": "sastc", "font.family": "sans-serif",
        }
    )  # fmt: skip
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:  # outside a notebook
        return
    set_matplotlib_formats("svg")


def _finish(axis, xlabel: str, ylabel: str, title: str = "") -> None:
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)


def learning_curves(runs: Sequence[Run], labels: Sequence[str] | None = None) -> Figure:
    """Training loss and test accuracy by epoch, one line a run in its method's colour."""
    figure, (left, right) = plt.subplots(1, 2)
    for i, run in enumerate(runs):
        history, method = run.history, run.config.method
        look = dict(color=COLOURS[method], marker=MARKERS[method], label=labels[i] if labels else LABELS[method])
        left.plot(history.epoch, history.train_loss, **look)
        right.plot(history.epoch, history.test_accuracy, **look)
    left.set_yscale("log")
    _finish(left, "epoch", "training loss (nats)")
    _finish(right, "epoch", "test accuracy (%)")
    right.legend()
    return figure


def loss_parts(run: Run) -> Figure:
    """The terms of the training loss by epoch, each with its weight, so that their sizes can be compared."""
    figure, axis = plt.subplots(figsize=(7.0, 2.8))
    history, config = run.history, run.config
    lines = {"cross-entropy": history.cross_entropy}
    if "kd_loss" in history:
        lines["KL term of Eq. 8, with its weight"] = history.kd_loss - config.ce_weight * history.cross_entropy
    if "feature_loss" in history:
        lines[f"β × feature loss (β = {config.beta:g})"] = config.beta * history.feature_loss
    for (label, values), dash in zip(lines.items(), ("-", "--", ":"), strict=False):
        axis.plot(history.epoch, values, dash, color="black", label=label)
    axis.set_yscale("log")
    _finish(axis, "epoch", "training loss (nats)")
    axis.legend()
    return figure


def stm_curve(runs: Sequence[Run]) -> Figure:
    """Mismatch score (Eq. 1) by epoch."""
    figure, axis = plt.subplots(figsize=(7.0, 2.8))
    for run in runs:
        history, method = run.history, run.config.method
        axis.plot(history.epoch, history.stm, color=COLOURS[method], marker=MARKERS[method], label=LABELS[method])
    base = runs[0].config.stm_log_base
    scale = {"none": "", "e": ", ln"}.get(base, f", log{base}")
    _finish(axis, "epoch", f"STM score{scale} (lower: closer)")
    axis.legend()
    return figure


def attention_maps(run: Run, epoch: int = -1) -> Figure:
    """Mean attention of every student layer to every teacher layer, one heat map a time step.

    The colour scale spans the weights that normalised queries and keys allow, so a map that cannot get any sharper
    looks like one; the red line marks the uniform weight.
    """
    measures, config = run.measures, run.config
    attention = measures["attention"][epoch]  # (T, S, A)
    low, high = attention_bounds(attention.shape[-1], config.qk_norm, config.score_scale)
    columns = min(len(attention), 4)
    rows = -(-len(attention) // columns)
    size = (max(3.4, 2.1 * columns + 1.2), 2.3 * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axis in axes.flat[len(attention) :]:
        axis.set_visible(False)
    for t, (axis, weights) in enumerate(zip(axes.flat, attention, strict=False), 1):
        picture = axis.imshow(weights, cmap=SEQUENTIAL, vmin=low, vmax=high, aspect="auto")
        for (s, a), weight in np.ndenumerate(weights):
            dark = weight < low + 0.6 * (high - low)
            axis.text(a, s, f"{weight:.2f}", ha="center", va="center", fontsize=8, color="white" if dark else "black")
        axis.grid(False)
        first, last = (t - 1) % columns == 0, t > len(attention) - columns
        axis.set_xticks(range(weights.shape[1]), measures["teacher_layers"] if last else [], rotation=30, ha="right")
        axis.set_yticks(range(weights.shape[0]), measures["student_layers"] if first else [])
        _finish(axis, "teacher layer" if last else "", "student layer" if first else "", f"t = {t}")
    bar = figure.colorbar(picture, ax=axes, shrink=0.9, label="attention η")
    bar.ax.axhline(1 / attention.shape[-1], color="red", linewidth=1.2)
    return figure


def attention_history(run: Run) -> Figure:
    """How the attention moves during training: one panel a student layer, one line a teacher layer, mean over time."""
    measures = run.measures
    attention = measures["attention"].mean(1)  # (E, S, A)
    figure, axes = plt.subplots(1, attention.shape[1], sharey=True, figsize=(7.0, 2.6), squeeze=False)
    epochs = np.arange(1, len(attention) + 1)
    for s, axis in enumerate(axes[0]):
        for a, name in enumerate(measures["teacher_layers"]):
            shade = plt.get_cmap(SEQUENTIAL)(a / max(attention.shape[2] - 1, 1) * 0.85)
            axis.plot(epochs, attention[:, s, a], color=shade, marker="os^Dv*"[a % 6], label=f"teacher {name}")
        axis.axhline(1 / attention.shape[2], color="red", linewidth=1)
        _finish(axis, "epoch", "attention η" if s == 0 else "", f"student {measures['student_layers'][s]}")
    axes[0][-1].legend(fontsize=8)
    return figure


def weight_against_distance(runs: Sequence[Run]) -> Figure:
    """Mean weight of every pair of layers against its mean distance: one panel a run, one line a student layer."""
    columns = min(len(runs), 3)
    rows = -(-len(runs) // columns)
    size = (max(3.4, 2.1 * columns + 1.0), 2.5 * rows)
    figure, axes = plt.subplots(rows, columns, sharey=True, figsize=size, squeeze=False)
    for axis in axes.flat[len(runs) :]:
        axis.set_visible(False)
    for axis, run in zip(axes.flat, runs, strict=False):
        measures, config = run.measures, run.config
        weights, distances = (measures[name][-1].mean(0) for name in ("attention", "distance"))  # (S, A)
        for s, layer in enumerate(measures["student_layers"]):
            order = np.argsort(distances[s])
            shade = plt.get_cmap(SEQUENTIAL)(s / max(len(weights) - 1, 1) * 0.85)
            axis.plot(distances[s][order], weights[s][order], color=shade, marker="os^Dv*"[s % 6], label=layer)
        for bound in attention_bounds(weights.shape[1], config.qk_norm, config.score_scale):
            axis.axhline(bound, color="gray", linewidth=1, linestyle=":")
        axis.axhline(1 / weights.shape[1], color="red", linewidth=1)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=6))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        pair = f"{LABELS[config.student]} &\n{LABELS[config.teacher]}, T={config.timesteps}"
        _finish(axis, "distance", "attention η" if axis in axes[:, 0] else "", pair)
    most = max(axes.flat, key=lambda axis: len(axis.lines))  # the run with the most student layers
    figure.legend(*most.get_legend_handles_labels(), loc="outside right upper", title="student layer")
    return figure


def accuracy_overview(runs: pd.DataFrame) -> Figure:
    """Accuracy of every student, teacher and T as dots: one row a combination, one colour and shape a method."""
    done = runs[runs.complete]
    keys = done[done.method != "baseline"][["student", "teacher", "timesteps"]].drop_duplicates()
    figure, axis = plt.subplots(figsize=(7.0, 0.42 * len(keys) + 1.3))
    for y, (student, teacher, timesteps) in enumerate(keys.itertuples(index=False)):
        rows = done[(done.student == student) & (done.timesteps == timesteps)]
        rows = rows[(rows.teacher == teacher) | (rows.method == "baseline")]
        for i, method in enumerate(METHODS):
            values = rows[rows.method == method].accuracy
            look = dict(color=COLOURS[method], marker=MARKERS[method], label=LABELS[method] if y == 0 else None)
            axis.plot(values, np.full(len(values), y + 0.16 * (i - 1.5)), linestyle="none", **look)
    names = [f"{LABELS[s]} & {LABELS[a]}, T={t}" for s, a, t in keys.itertuples(index=False)]
    axis.set_yticks(range(len(keys)), names)
    axis.invert_yaxis()
    _finish(axis, "test accuracy (%), one mark a seed", "")
    axis.legend(loc="upper center", bbox_to_anchor=(0.4, -0.7 / (0.42 * len(keys) + 0.6)), ncols=4)
    return figure
