"""Figures of recorded runs, all in one style."""

import base64
import html
import io
from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from sastc.config import METHODS
from sastc.labels import LABELS, method_label, run_title
from sastc.methods import REGISTRY
from sastc.records import Run

# Okabe and Ito's palette, which the colour-blind can tell apart; shape repeats what colour says. Black takes the colour
# of the page's text, so the teacher's is light on a dark page.
COLOURS = {name: method.colour for name, method in REGISTRY.items()} | {"teacher": "#000000"}
MARKERS = {name: method.marker for name, method in REGISTRY.items()} | {"teacher": "*"}
# Lines of layers: no method's colour, and at least 3 to 1 against white and against a dark page.
SERIES = ("#1a9274", "#b8559c", "#8f7d12", "#8a6fd1", "#2a92a3", "#a8745c")
SERIES_MARKERS = "os^Dv*"
SEQUENTIAL = "cividis"
WIDTH = 7.0  # inches, the most that a page of the book shows whole, with labels of the size they are drawn in
ON_LIGHT, ON_DARK = "#111111", "#ffffff"  # text on a coloured cell, which is the same in both themes


def style() -> None:
    """Set the house style of all figures: vectors without a ground, black for what takes the colour of text.

    In a notebook a figure is shown as :func:`as_html` has it.
    """
    mpl.rcParams.update(
        {
            "figure.figsize": (WIDTH, 3.0), "figure.constrained_layout.use": True,
            "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
            "font.size": 10, "axes.titlesize": 10, "axes.labelsize": 10, "legend.frameon": False,
            "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
            "axes.grid": True, "grid.color": "#808080", "grid.alpha": 0.25,
            "lines.linewidth": 1.6, "lines.markersize": 4.5,
            "svg.fonttype": "none", "svg.hashsalt": "sastc", "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],  # each text of a drawing names the whole list
        }
    )  # fmt: skip
    try:
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    if shell := get_ipython():
        set_matplotlib_formats()  # no picture beside the one below
        shell.display_formatter.formatters["text/html"].for_type(Figure, as_html)


def as_html(drawing: Figure, name: str = "", caption: str = "", alt: str = "") -> str:
    """HTML of a figure with its caption and a link to it as SVG.

    The book puts the SVG itself in the place of the image, so that black becomes the page's colour of text.

    Parameters
    ----------
    name : str, optional
        Of the file, and of the anchor ``fig-<name>``; the figure's ``gid`` by default.
    caption : str, optional
        What is seen, so that it can be read alone; the figure's label by default.
    alt : str, optional
        For those who do not see it; the caption by default.
    """
    name, caption = name or drawing.get_gid() or "figure", caption or drawing.get_label()
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    source = f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return (
        f'<figure class="drawing" id="fig-{html.escape(name)}">'
        f'<img alt="{html.escape(alt or caption)}" src="{source}" style="max-width:100%;height:auto;background:#fff">'
        f'<figcaption>{html.escape(caption)} <a class="download" download="{html.escape(name)}.svg" href="{source}">SVG'
        "</a></figcaption></figure>"
    )


def _named(figure: Figure, name: str, caption: str) -> Figure:
    """The figure with what :func:`as_html` says of it."""
    figure.set_gid(name)
    figure.set_label(caption)
    return figure


def _of(runs: Sequence[Run]) -> str:
    """The runs that a caption speaks of: one, or one of each method."""
    if len(runs) == 1:
        return run_title(runs[0])
    config = max((run.config for run in runs), key=lambda config: config.method != "baseline")
    pair = f"{LABELS[config.student]} & {LABELS[config.teacher]}"
    return f"one run of each method, {pair}, T={config.timesteps}, seed {config.seed}"


def series(index: int) -> dict[str, str]:
    """Colour and marker of one of several layers."""
    return dict(color=SERIES[index % len(SERIES)], marker=SERIES_MARKERS[index % len(SERIES_MARKERS)])


def look_of(run: Run) -> dict[str, str]:
    """Colour, marker and label of a run's method, the library's or not."""
    kind = run.config.method_class
    colour, marker = (COLOURS["teacher"], MARKERS["teacher"]) if kind is None else (kind.colour, kind.marker)
    return dict(color=colour, marker=marker, label=method_label(run.config))


def _finish(axis, xlabel: str, ylabel: str, title: str = "") -> None:
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if xlabel == "epoch":
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def learning_curves(runs: Sequence[Run], labels: Sequence[str] | None = None) -> Figure:
    """Training loss and test accuracy by epoch, one line a run in its method's colour."""
    figure, (left, right) = plt.subplots(1, 2)
    for i, run in enumerate(runs):
        history = run.history
        look = look_of(run) | ({"label": labels[i]} if labels else {})
        left.plot(history.epoch, history.train_loss, **look)
        right.plot(history.epoch, history.test_accuracy, **look)
    left.set_yscale("log")
    _finish(left, "epoch", "training loss (nats)")
    _finish(right, "epoch", "test accuracy (%)")
    right.legend()
    caption = f"Training loss (left, logarithmic) and test accuracy (right) after every epoch: {_of(runs)}."
    return _named(figure, "learning-curves", caption)


def loss_parts(run: Run) -> Figure:
    """The terms of the training loss by epoch, each with its weight, so that their sizes can be compared."""
    figure, axis = plt.subplots(figsize=(7.0, 2.8))
    history, config = run.history, run.config
    lines = {"cross-entropy": history.cross_entropy}
    if "kd_loss" in history:
        lines["KL term of Eq. 8, with its weight"] = history.kd_loss - config.ce_weight * history.cross_entropy
    if "feature_loss" in history:
        beta = np.array([config.beta_at(epoch - 1) for epoch in history.epoch])
        lines[f"β × feature loss (β = {config.beta:g})"] = beta * history.feature_loss
    for (label, values), dash in zip(lines.items(), ("-", "--", ":"), strict=False):
        axis.plot(history.epoch, values, dash, color="black", label=label)
    axis.set_yscale("log")
    _finish(axis, "epoch", "training loss (nats)")
    figure.legend(loc="outside upper center", ncols=3)
    caption = f"Terms of the training loss with their weights (Eq. 7 and 8), logarithmic: {run_title(run)}."
    return _named(figure, "loss-parts", caption)


def stm_curve(runs: Sequence[Run]) -> Figure:
    """Mismatch score (Eq. 1) by epoch."""
    figure, axis = plt.subplots(figsize=(7.0, 2.8))
    for run in runs:
        history = run.history
        axis.plot(history.epoch, history.stm, **look_of(run))
    base = runs[0].config.stm_log_base
    scale = {"none": "", "e": ", ln"}.get(base, f", log{base}")
    _finish(axis, "epoch", f"STM score{scale} (lower: closer)")
    axis.legend()
    return _named(figure, "mismatch", f"Mismatch score (Eq. 1) on training batches of every epoch: {_of(runs)}.")


def attention_maps(run: Run, epoch: int = -1) -> Figure:
    """Mean attention of every student layer to every teacher layer, one heat map a time step.

    The colour scale spans the weights that normalised queries and keys allow, so a map that cannot get any sharper
    looks like one; the red line marks the uniform weight.
    """
    measures, config = run.measures, run.config
    attention = measures["attention"][epoch]  # (T, S, A)
    low, high = config.attention_bounds(attention.shape[-1])
    columns = min(len(attention), 4)
    rows = -(-len(attention) // columns)
    size = (min(max(3.4, 2.1 * columns + 1.2), WIDTH), 2.3 * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axis in axes.flat[len(attention) :]:
        axis.set_visible(False)
    for t, (axis, weights) in enumerate(zip(axes.flat, attention, strict=False), 1):
        picture = axis.imshow(weights, cmap=SEQUENTIAL, vmin=low, vmax=high, aspect="auto")
        for (s, a), weight in np.ndenumerate(weights):
            dark = weight < low + 0.6 * (high - low)
            colour = ON_DARK if dark else ON_LIGHT
            axis.text(a, s, f"{weight:.2f}", ha="center", va="center", fontsize=8, color=colour)
        axis.grid(False)
        first, last = (t - 1) % columns == 0, t > len(attention) - columns
        axis.set_xticks(range(weights.shape[1]), measures["teacher_layers"] if last else [], rotation=30, ha="right")
        axis.set_yticks(range(weights.shape[0]), measures["student_layers"] if first else [])
        _finish(axis, "teacher layer" if last else "", "student layer" if first else "", f"t = {t}")
    bar = figure.colorbar(picture, ax=axes, shrink=0.9, label="attention η")
    bar.ax.axhline(1 / attention.shape[-1], color="red", linewidth=1.2)
    caption = (
        "Mean attention η (Eq. 5) over test images at each time step. The scale spans what the weights can be; red is "
    )
    caption += f"the uniform weight. {run_title(run)}."
    return _named(figure, "attention-maps", caption)


def attention_history(run: Run) -> Figure:
    """How the attention moves during training: one panel a student layer, one line a teacher layer, mean over time."""
    measures = run.measures
    attention = measures["attention"].mean(1)  # (E, S, A)
    figure, axes = plt.subplots(1, attention.shape[1], sharey=True, figsize=(7.0, 2.6), squeeze=False)
    epochs = np.arange(1, len(attention) + 1)
    for s, axis in enumerate(axes[0]):
        for a, name in enumerate(measures["teacher_layers"]):
            axis.plot(epochs, attention[:, s, a], label=f"teacher {name}", **series(a))
        axis.axhline(1 / attention.shape[2], color="red", linewidth=1)
        _finish(axis, "epoch", "attention η" if s == 0 else "", f"student {measures['student_layers'][s]}")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=6, fontsize=9)
    caption = "Attention of every student layer (panels) to every teacher layer (lines) by epoch, mean over time steps "
    caption += f"and test images; the red line is the uniform weight. {run_title(run)}."
    return _named(figure, "attention-history", caption)


def weight_against_distance(runs: Sequence[Run]) -> Figure:
    """Mean weight of every pair of layers against its mean distance: one panel a run, one line a student layer."""
    columns = min(len(runs), 3)
    rows = -(-len(runs) // columns)
    size = (min(max(3.4, 2.1 * columns + 1.0), WIDTH), 2.5 * rows)
    figure, axes = plt.subplots(rows, columns, sharey=True, figsize=size, squeeze=False)
    for axis in axes.flat[len(runs) :]:
        axis.set_visible(False)
    for axis, run in zip(axes.flat, runs, strict=False):
        measures, config = run.measures, run.config
        weights, distances = (measures[name][-1].mean(0) for name in ("attention", "distance"))  # (S, A)
        for s, layer in enumerate(measures["student_layers"]):
            order = np.argsort(distances[s])
            axis.plot(distances[s][order], weights[s][order], label=layer, **series(s))
        for bound in config.attention_bounds(weights.shape[1]):
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
    caption = (
        "Mean attention η of every pair of layers against its mean unweighted distance (Eq. 6, logarithmic), by run "
    )
    caption += "(panels) and student layer (lines); red the uniform weight, dotted the bounds that unit length sets."
    return _named(figure, "weight-against-distance", caption)


def accuracy_overview(runs: pd.DataFrame) -> Figure:
    """Accuracy of every student, teacher and T as dots: one row a combination, one colour and shape a method."""
    done = runs[runs.complete]
    keys = done[done.method != "baseline"][["dataset", "student", "teacher", "timesteps"]].drop_duplicates()
    figure, axis = plt.subplots(figsize=(7.0, 0.42 * len(keys) + 1.3))
    for y, (dataset, student, teacher, timesteps) in enumerate(keys.itertuples(index=False)):
        rows = done[(done.dataset == dataset) & (done.student == student) & (done.timesteps == timesteps)]
        rows = rows[(rows.teacher == teacher) | (rows.method == "baseline")]
        for i, method in enumerate(METHODS):
            values = rows[rows.method == method].accuracy
            look = dict(color=COLOURS[method], marker=MARKERS[method], label=LABELS[method] if y == 0 else None)
            axis.plot(values, np.full(len(values), y + 0.16 * (i - 1.5)), linestyle="none", **look)
    several = keys.dataset.nunique() > 1
    names = [
        f"{LABELS[s]} & {LABELS[a]}, T={t}" + f", {LABELS[d]}" * several for d, s, a, t in keys.itertuples(index=False)
    ]
    axis.set_yticks(range(len(keys)), names)
    axis.set_ylim(len(keys) - 0.5, -0.5)
    _finish(axis, "test accuracy (%), per seed", "")
    axis.legend(loc="upper center", bbox_to_anchor=(0.4, -0.7 / (0.42 * len(keys) + 0.6)), ncols=4)
    return _named(figure, "accuracies", "Test accuracy of every recorded run, per seed, by pair, T and method.")
