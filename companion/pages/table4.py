"""Table 4: published spiking networks, accuracy against the number of time steps."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from companion import report
from companion.figures import COLOURS, SERIES, WIDTH
from companion.pages import grid, parts, sweeps
from sastc.experiments import Experiment, load_experiment
from sastc.labels import LABELS

# Shape says how a network was made, after the works cited: weights of a trained ANN (some trained on), or its own.
CONVERTED = ("Norm", "SPIKE-NORM", "Hybrid", "DIET-SNN")
OURS = "this book"
SETTINGS = {"learning_rate": "learning rate", "beta": "β"}  # named where our rows differ in them


def published() -> pd.DataFrame:
    """The paper's Table 4; `kind` is converted, trained, ANN or SASTC."""
    table = grid.published("sota_static")
    kinds = dict.fromkeys(CONVERTED, "converted") | {"ANN": "ANN", "sastc": "SASTC"}
    return table.assign(kind=[kinds.get(name, "trained") for name in table.method])


def collect(plan: Experiment, results: str | Path = "results") -> pd.DataFrame:
    """Runs that may stand in the table, on CIFAR or ImageNet: the plan's, and other scales' that are of record."""
    path = report.ROOT / "experiments" / f"{plan.name}.yaml"
    others = [parts.frame(load_experiment(path, scale), results) for scale in plan.of_record if scale != plan.scale]
    recorded = [runs[runs.complete] for runs in others if len(runs)]
    runs = pd.concat([parts.frame(plan, results), *(r for r in recorded if len(r))], ignore_index=True)
    return runs[runs.dataset.isin(grid.SAME_DATA)]


def table(runs: pd.DataFrame) -> str:
    """HTML table of the paper's rows and our runs, the best of each dataset first; CSV of the same."""
    rows = published()
    rows = rows.assign(method=[LABELS.get(m, m) for m in rows.method], architecture=rows.architecture.fillna(""))
    done = runs[runs.complete]
    if len(done):
        differ = [name for name in SETTINGS if done[name].nunique() > 1]
        ours = grid.means(done, ["data", "student", "timesteps", "scale", *differ])
        names = []
        for row in ours.itertuples():
            own = ", ".join(f"{SETTINGS[name]} {getattr(row, name):g}" for name in differ)
            teacher = sweeps.taught(done[done.run.isin(row.runs.split())]).rstrip(" .").lower()
            names.append("; ".join(filter(None, (f"SASTC, {OURS}, {report.SCALE_WORDS[row.scale]}", own, teacher))))
        student = [LABELS[s] for s in ours.student]
        ours = ours.assign(method=names, citation=OURS, architecture=student, kind="ours")
        rows = pd.concat([rows, ours.assign(dataset=ours.data)])
    rows["dataset"] = [LABELS.get(d, d) for d in rows.dataset]
    rows = rows.sort_values(["dataset", "accuracy"], ascending=[True, False], kind="stable")
    keep = ["dataset", "method", "citation", "architecture", "timesteps", "accuracy", "sd", "n", "kind", "runs"]
    rows = rows.reindex(columns=keep)
    caption = "The paper's Table 4, by accuracy; an ANN has one step."
    if len(done):
        caption += f" SASTC of this paper is the paper's, of {OURS} ours."
    words = {"timesteps": "T", "accuracy": "accuracy (%)"}
    columns = {words.get(c, c): c for c in keep[:6]} | {"n": lambda r: f"{r.n:.0f}" if r.n > 0 else "–", "kind": "kind"}
    seed_of = dict(zip(done.run, done.seed, strict=True))

    def seeds(row) -> str:
        links = [parts.run_link(name, seed_of[name]) for name in str(row.runs).split()] if row.n > 0 else []
        return f'<span class="seeds">seed {" ".join(links)}</span>' if links else ""

    columns["runs"] = seeds
    return parts.table(rows, caption, "table4", columns)


def chart(runs: pd.DataFrame) -> Figure:
    """Accuracy against time steps on a logarithmic axis, one panel a dataset."""
    rows = published()
    datasets = list(dict.fromkeys(rows.dataset))
    rows_of_panels = -(-len(datasets) // 2)
    figure, axes = plt.subplots(rows_of_panels, 2, figsize=(WIDTH, 4.0 * rows_of_panels + 0.5), squeeze=False)
    for axis in axes.flat[len(datasets) :]:
        axis.set_visible(False)
    looks = {
        "converted": dict(marker="s", color=COLOURS["baseline"]),
        "trained": dict(marker="o", color=SERIES[4]),
        "ANN": dict(marker="*", color="black", markersize=9),
        "SASTC": dict(marker="D", color=COLOURS["sastc"], linestyle="-", fillstyle="none"),
    }
    words = {"converted": "weights from an ANN", "trained": "trained directly", "SASTC": "SASTC (paper)"}
    for axis, dataset in zip(axes.flat, datasets, strict=False):
        here = rows[rows.dataset == dataset]
        for kind, look in looks.items():
            for _, line in here[here.kind == kind].groupby("architecture" if kind == "SASTC" else "kind"):
                line = line.sort_values("timesteps")
                axis.plot(line.timesteps, line.accuracy, **{"linestyle": "none", **look})
        _name(axis, here)
        floor = here.accuracy.min() - 2.5  # room for what is named at it
        own = runs[runs.complete & (runs.dataset == dataset)]
        lines: dict[str, list[str]] = {}  # far below: with an axis for them the literature would shrink to a line
        for (student, scale, data), line in own.groupby(["student", "scale", "data"]):
            mean = line.groupby("timesteps").accuracy.agg(["mean", "std"])
            axis.errorbar(mean.index, mean["mean"], mean["std"], fmt="D-", color=COLOURS["sastc"])
            if len(below := mean["mean"][mean["mean"] < floor]):
                means, steps = (", ".join(map(form, of)) for form, of in (("{:.1f}".format, below), (str, below.index)))
                told = f"{LABELS[student]} {means} ↓ (T = {steps})"
                where = data.removeprefix(LABELS[dataset]).strip(" ()")
                where = f", {where}" if where else ""
                lines.setdefault(f"{OURS}, {report.SCALE_WORDS[scale]}{where}:", []).append(told)
        if lines:
            look = dict(xytext=(-8, 2), textcoords="offset points", va="bottom", fontsize=7, color=COLOURS["sastc"])
            told = "\n".join(line for head, below in lines.items() for line in (head, *below))
            axis.annotate(told, (own.timesteps.min(), floor), **look)
        axis.set_ylim(floor, here.accuracy.max() + 0.8)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set(title=LABELS[dataset], xlabel="time steps T")
    for first, *_ in axes:
        first.set_ylabel("test accuracy (%)")
    handles = [plt.Line2D([], [], **{"linestyle": "none", **k}, label=words.get(n, n)) for n, k in looks.items()]
    if runs.complete.any():
        handles.append(plt.Line2D([], [], marker="D", color=COLOURS["sastc"], label=f"SASTC ({OURS})"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _name(axis, rows: pd.DataFrame) -> None:
    """Name the networks of others that none of theirs surpasses with as few steps, and the paper's architectures.

    Names of others stand in the empty right half of the panel, each with a line to its mark.
    """
    best = -1.0
    others = rows[~rows.kind.isin(["SASTC", "ANN"])]
    for row in others.sort_values(["timesteps", "accuracy"], ascending=[True, False]).itertuples():
        if row.accuracy <= best:
            continue
        best, text, mark = row.accuracy, f"{row.method},\n{row.architecture}", (row.timesteps, row.accuracy)
        look = dict(fontsize=7, va="center", linespacing=1.0)
        if row.timesteps > 100:  # it stands there itself
            axis.annotate(text, mark, (-7, 0), textcoords="offset points", ha="right", **look)
        else:
            line = dict(arrowstyle="-", color="gray", linewidth=0.6, shrinkB=3)
            place = dict(xytext=(0.55, row.accuracy), textcoords=axis.get_yaxis_transform(), arrowprops=line)
            axis.annotate(text, mark, **place, **look)
    own = rows[rows.kind == "SASTC"]
    for architecture, line in own.groupby("architecture"):
        last = line.loc[line.timesteps.idxmax()]
        place = dict(xytext=(-4, 6 if len(line) > 1 else -11), textcoords="offset points", color=COLOURS["sastc"])
        axis.annotate(architecture, (last.timesteps, last.accuracy), fontsize=7, **place)


def sentences(runs: pd.DataFrame) -> list[str]:
    """Which rows of the paper's own table are above its SASTC, and what of ours can stand beside it."""
    rows, lines = published(), []
    for dataset, here in rows.groupby("dataset", sort=False):
        own = here[here.kind == "SASTC"]
        others = here[~here.kind.isin(["SASTC", "ANN"])]
        above = others[others.accuracy > own.accuracy.max()]
        told = "; ".join(
            f"{r.method} ({r.architecture}, T={r.timesteps}, {r.accuracy:.2f} %)" for r in above.itertuples()
        )
        best = own.loc[own.accuracy.idxmax()]
        ahead = (
            f"above it stand{'s' * (len(above) == 1)} {told}"
            if told
            else "no other spiking network of the table is above it"
        )
        lines.append(f"{LABELS[dataset]}: the paper's SASTC reaches {best.accuracy:.2f} % ({best.architecture}, "
                     f"T={best.timesteps}); {ahead}.")  # fmt: skip
    done = int(runs.complete.sum())
    scales = " and ".join(report.SCALE_WORDS[scale] for scale in dict.fromkeys(runs.scale[runs.complete]))
    lines.append(
        f"The figure has {done} runs of ours ({scales}; {report.data_of(runs)}); an arrow marks those that lie below "
        "an axis."
        if done
        else "No recorded run of ours is on one of these datasets, so none stands in the figure."
    )
    return lines
