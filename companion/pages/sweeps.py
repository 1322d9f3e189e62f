"""Pages on one setting: its values down, the methods across, the paper's values beside ours (tables and curves)."""

import dataclasses
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion import report
from companion.figures import COLOURS, MARKERS, WIDTH
from companion.html import interval, rows_table
from companion.pages import grid, parts
from companion.stats import FEWEST, NO_INTERVAL, Difference, difference, family, over, paired
from sastc.config import DISTIL, METHODS, SCALES, RunConfig
from sastc.experiments import Experiment
from sastc.labels import LABELS, SCALE_LABELS
from sastc.records import Run


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a page varies, and where the paper prints it."""

    field: str  # of RunConfig
    words: str
    values: str  # what there are several of
    table: str  # paper/<table>.csv
    column: str  # of that table
    methods: tuple[str, ...] = ("teacher", *METHODS)
    split: dict[str, str] = dataclasses.field(default_factory=dict)  # values shown apart, and their words
    split_field: str = ""
    neutral: float | None = None  # the value at which the split says nothing
    percent: bool = False

    def show(self, value: float) -> str:
        """A value in words."""
        return f"{100 * value:g} %" if self.percent else f"{value:g}"


TABLE7 = Sweep(
    "label_noise", "wrong training labels", "shares of wrong labels", "noisy_labels", "noise_fraction", percent=True,
    neutral=0.0, split_field="noise_teacher",
    split={"clean": "teacher trained on clean labels", "same_noise": "teacher trained on the same wrong labels"},
)  # fmt: skip
FEWSHOT = Sweep(
    "train_fraction", "training images of each class", "shares of the images", "few_shot", "train_fraction",
    percent=True, neutral=1.0, split_field="subset_teacher",
    split={"same_subset": "teacher trained on the same images", "full": "teacher trained on all images"},
)  # fmt: skip
BATCHSIZE = Sweep(
    "batch_size", "batch size", "batch sizes", "batch_size", "batch_size", methods=("baseline", "kd", "sastc")
)
BETA = Sweep(
    "beta", "weight β of the feature loss", "values of β", "beta_sensitivity", "", methods=("baseline", "kd", "sastc")
)


class Panel(NamedTuple):
    """The cells of one student, teacher and kind of teacher."""

    title: str
    key: str  # for file names
    runs: pd.DataFrame
    paper: pd.DataFrame  # method, value, accuracy


def published(sweep: Sweep) -> pd.DataFrame:
    """The paper's cells: dataset, student, teacher, method, value, accuracy (nan where it prints a figure alone)."""
    table = grid.published(sweep.table)
    if sweep.column:
        return table.rename(columns={sweep.column: "value"})
    rows = []
    for (dataset, student, teacher), facts in table.groupby(["dataset", "student", "teacher"], sort=False):
        low, high, step = (facts.value[facts.quantity == f"beta_{name}"].iloc[0] for name in ("min", "max", "step"))
        pair = dict(dataset=dataset, student=student, teacher=teacher, timesteps=facts.timesteps.iloc[0])
        rows += [pair | dict(method=m, value=np.nan, accuracy=np.nan) for m in ("baseline", "kd")]
        rows += [pair | dict(method="sastc", value=v, accuracy=np.nan) for v in np.arange(low, high + 1, step)]
    return pd.DataFrame(rows)


def wanted(sweep: Sweep, plan: Experiment) -> Iterator[RunConfig]:
    """A run for each of the paper's cells at the plan's scale, with the settings of the plan's first run."""
    template = plan.runs[0]
    for row in published(sweep).itertuples():
        changes = dict(method="kd" if row.method == "teacher" else row.method)
        if not sweep.column:  # β: a panel for each of the paper's pairs
            changes |= dict(dataset=grid.dataset_for(row.dataset, template), student=row.student, teacher=row.teacher)
        if pd.notna(row.value):
            changes[sweep.field] = int(row.value) if sweep.field == "batch_size" else float(row.value)
        splits = list(sweep.split) if row.method in DISTIL and row.value != sweep.neutral else []
        if row.method == "teacher":  # the one trained on the same data
            splits = [next(s for s in sweep.split if s.startswith("same"))]
        for split in splits or [""]:
            config = template.replace(**changes | ({sweep.split_field: split} if split else {}))
            yield config.teacher_config() if row.method == "teacher" else config


def collect(sweep: Sweep, plan: Experiment, results: str | Path = "results") -> list[Panel]:
    """The page's panels; every cell of the paper is in one, run or not.

    Each has the teacher that taught its students: the one trained on the same data, which the paper's row is of, or the
    same one at every value, which the paper has not.
    """
    runs = grid.filled(plan, wanted(sweep, plan), results)
    runs = runs[runs.method.isin(sweep.methods)]
    applies = RunConfig.fields()[sweep.field].metadata["applies"]
    runs = runs.assign(value=runs[sweep.field].where(runs.method.isin(applies)))
    cells, panels = published(sweep), []
    students = runs[runs.method != "teacher"]
    for dataset, student, teacher, steps in dict.fromkeys(
        students[["dataset", "student", "teacher", "timesteps"]].itertuples(index=False, name=None)
    ):
        pair = runs[(runs.dataset == dataset) & (runs.teacher == teacher)]
        pair = pair[((pair.student == student) & (pair.timesteps == steps)) | (pair.method == "teacher")]
        printed = cells
        if not sweep.column:
            printed = cells[(cells.student == student) & (cells.teacher == teacher)]
        title = f"{LABELS[student]} & {LABELS[teacher]}, T={steps}, {report.data_of(pair)}"
        for split in sweep.split or [""]:
            chosen = pair
            if split:
                alike = ~pair.method.isin(DISTIL) | (pair.value == sweep.neutral)
                chosen = pair[alike | (pair[sweep.split_field] == split)]
            paper = printed
            if split and not split.startswith("same"):  # one teacher for all values
                one = chosen[(chosen.method == "teacher") & (chosen.value == sweep.neutral)]
                levels = sorted({*chosen.value.dropna(), *printed.value.dropna()})
                chosen = pd.concat([chosen[chosen.method != "teacher"], *(one.assign(value=v) for v in levels)])
                paper = printed[printed.method != "teacher"]
            words = f"{title}: {sweep.split[split]}" if split else title
            panels.append(Panel(words, "_".join(filter(None, (student, teacher, split))), chosen, paper))
    return panels


def shown(panels: list[Panel]) -> list[Panel]:
    """The panels in which SASTC is run at more than one value; where there is none, the first."""
    values = [p.runs.value[p.runs.complete & (p.runs.method == "sastc")].nunique() for p in panels]
    return [panel for panel, n in zip(panels, values, strict=True) if n > 1] or panels[:1]


def every_run(panels: list[Panel]) -> pd.DataFrame:
    """The runs of all panels, each once."""
    return pd.concat([panel.runs for panel in panels]).drop_duplicates("run")


def _cell(panel: Panel, method: str, value: float) -> tuple[pd.DataFrame, float]:
    """Our runs and the paper's value; a method without the field has the same at every value."""
    rows, cells = (frame[frame.method == method] for frame in (panel.runs, panel.paper))
    if rows.value.notna().any():
        rows, cells = rows[rows.value == value], cells[cells.value == value]
    return rows, cells.accuracy.iloc[0] if len(cells) else np.nan


def values(panel: Panel) -> list[float]:
    """All values of the setting, ours and the paper's."""
    return sorted({*panel.runs.value.dropna(), *panel.paper.value.dropna()})


def _rows(sweep: Sweep, panel: Panel) -> list[tuple[str, list[str], float]]:
    """Rows of a table: heading, methods and value; methods without the setting have a row of their own, the first."""
    without = [m for m in sweep.methods if panel.runs.value[panel.runs.method == m].isna().all()]
    rows = [(sweep.show(value), [m for m in sweep.methods if m not in without], value) for value in values(panel)]
    return [("without", without, np.nan), *rows] if without else rows


def table(sweep: Sweep, panel: Panel) -> str:
    """HTML table of accuracies: a row a value, a column a method; CSV of the same."""
    comparable = grid.subtractable(panel.runs, panel.paper.dataset.iloc[0])
    frame = grid.means(panel.runs, ["method", "value"]).merge(
        panel.paper[["method", "value", "accuracy"]].rename(columns={"accuracy": "paper"}), "outer"
    )
    body = []
    for name, methods, value in _rows(sweep, panel):
        cells = [grid.cell(*_cell(panel, m, value), comparable) if m in methods else "" for m in sweep.methods]
        body.append([name, *cells])
    caption = f"{panel.title}. Test accuracy in percent, mean ± sd over n seeds. {_source(sweep, panel)}"
    heads, csv = [sweep.words, *(LABELS[m] for m in sweep.methods)], frame.rename(columns={"value": sweep.field})
    return rows_table(caption, heads, body, f"{sweep.table}_{panel.key}", csv, kind="results cards")


def taught(runs: pd.DataFrame) -> str:
    """How accurate the teachers were that taught the finished ones of some runs, as these say; '' where none does."""
    facts = [run.provenance for run in map(Run, runs.path[runs.complete]) if run.has("provenance.json")]
    known = {teacher["accuracy"] for fact in facts if (teacher := fact.get("teacher"))}
    return f"Teacher{'s' * (len(known) > 1)}: {report.span(known, '{:.2f}'.format)} %. " if known else ""


def _source(sweep: Sweep, panel: Panel) -> str:
    row = panel.paper.iloc[-1]
    pair = f"{LABELS[row.student]} &amp; {LABELS[row.teacher]} on {LABELS[row.dataset]} at T={row.timesteps:g}"
    teacher = "" if "teacher" in sweep.methods else taught(panel.runs)  # which has a column of its own
    return (
        f"{teacher}The paper's values: {pair}."
        if panel.paper.accuracy.notna().any()
        else f"{teacher}The paper draws {pair}."
    )


def differences(sweep: Sweep, panel: Panel) -> pd.DataFrame:
    """SASTC less every other method at each value that is run: the difference, what it allows to say, the paper's."""
    rows = []
    for value in values(panel):
        ours, printed = _cell(panel, "sastc", value)
        for other in sweep.methods:
            if other == "sastc":
                continue
            theirs, theirs_printed = _cell(panel, other, value)
            both = pd.concat([ours, theirs])
            gap = difference(both, "sastc", other) if len(both) else Difference()
            if other == "teacher" and len(one := theirs[theirs.complete]) == 1:  # it taught the students of all seeds
                students = ours[ours.complete].set_index("seed").accuracy
                gap = paired(students, one.accuracy.iloc[0], pd.Series(0, students.index))
            row = dict(value=value, other=other, difference=gap, paper=printed - theirs_printed)
            rows.append(row)
    found = pd.DataFrame(rows)
    for _, column in found.groupby("other"):
        found.loc[column.index, "difference"] = pd.Series(family(column.difference), column.index)
    return found.assign(judgement=[d.judgement for d in found.difference])


def differences_table(sweep: Sweep, panel: Panel) -> str:
    """HTML table of :func:`differences`: a row a value, a column another method."""
    gaps, body = differences(sweep, panel), []
    others = list(dict.fromkeys(gaps.other))
    for value, group in gaps.groupby("value"):
        if not any(d.n for d in group.difference):
            continue
        cells = [sweep.show(value)]
        for row in group.itertuples():
            paper = f'<span class="paper">paper {parts.signed(row.paper)}</span>' if np.isfinite(row.paper) else ""
            cells.append(f"{interval(row.difference, says=True)}{paper}")
        body.append(cells)
    caption = f"{panel.title}. Percentage points, mean and 95 % interval over {over(gaps.difference)}."
    caption += f" {_source(sweep, panel)}" * bool(panel.paper.accuracy.notna().any())
    heads, csv = (
        [sweep.words, *(f"SASTC −<br>{LABELS[m]}" for m in others)],
        gaps.rename(columns={"value": sweep.field}),
    )
    return rows_table(caption, heads, body, f"{sweep.table}_{panel.key}_differences", csv, kind="results cards")


def sentences(sweep: Sweep, panel: Panel) -> list[str]:
    """How often SASTC is ahead, here and in the paper, and of how many differences an interval excludes zero."""
    gaps, lines = differences(sweep, panel), []
    gaps = gaps.assign(mean=[d.mean for d in gaps.difference], n=[d.n for d in gaps.difference])
    students = [m for m in sweep.methods if m not in ("teacher", "sastc")]
    for names, words in ((students, "the other students"), (["teacher"], "the teacher")):
        rows = gaps[gaps.other.isin(names)]
        told = []
        for column, who in (("mean", "here"), ("paper", "in the paper")):
            known = rows.dropna(subset=column).groupby("value")[column].agg(["min", "count"])
            known = known[known["count"] == len(names)]
            if len(known):
                what = f" {sweep.values}" * (not told)
                told.append(f"{who} at {int((known['min'] > 0).sum())} of {len(known)}{what}")
        if names and told:
            lines.append(f"SASTC's mean is above {words}: {', '.join(told)}.")
    run = gaps[gaps.n > 0]
    if run.empty:
        return [f"{panel.title} is not run."]
    few, equal = int((run.n < FEWEST).sum()), int((run.judgement[run.n >= FEWEST] == NO_INTERVAL).sum())
    counts = run.judgement[run.n >= FEWEST].value_counts()
    words = {"better": "higher", "worse": "lower", "not distinguishable": "not distinguishable"}
    judged = ", ".join(f"{words[w]} in {counts[w]}" for w in words if w in counts)
    n = report.span(run.n[run.n < FEWEST]) if few else ""
    single = f"{few} of {len(run)} are of too few seeds to judge (n={n})"
    same = f"{equal} of {len(run)} are the same in every seed and have no interval"
    told = filter(None, (judged, single if few else "", same if equal else ""))
    lines.append("SASTC minus each other method: " + "; ".join(told) + ".")
    return [f"{panel.title}: {lines[0]}", *lines[1:]]


def optimum(panel: Panel) -> str:
    """The best value of SASTC's setting, here and in the paper, and what it is ahead of."""
    every = panel.runs[panel.runs.method == "sastc"]
    facts = grid.published("beta_sensitivity").set_index(["student", "teacher", "quantity"]).value
    pair = every.student.iloc[0], every.teacher.iloc[0]
    paper = ""
    if (*pair, "beta_optimum") in facts.index:
        names = ("beta_optimum", "gain_over_kd_at_optimum", "gain_over_baseline_at_optimum")
        best, kd, baseline = (facts[*pair, name] for name in names)
        paper = (
            f" The paper's optimum for this pair, at T={panel.paper.timesteps.iloc[0]:g}, is {best:g}: {kd:+.2f} "
            f"points over KD, {baseline:+.2f} over baseline."
        )
    rows = every[every.complete]
    if rows.value.nunique() < 2:
        return f"{panel.title}: fewer than two values are run.{paper}"
    mean = rows.groupby("value").accuracy.mean()
    best = mean.idxmax()
    others = mean.index.drop(best)
    gaps = dict(zip(others, family(difference(rows, best, value, "value") for value in others), strict=True))
    few = {value: gap.n for value, gap in gaps.items() if gap.n < FEWEST}
    alike = [value for value, gap in gaps.items() if value not in few and gap.judgement != "better"]
    told = [f"not distinguishable from {', '.join(f'{v:g}' for v in alike)}"] * bool(alike)
    if few:
        n = report.span(few.values())
        told += [f"with too few common seeds to compare it with {', '.join(f'{v:g}' for v in few)} (n={n})"]
    apart = ", ".join(told) or "ahead of all others"
    span = f"{mean.max() - mean.min():.2f} points between the best and the worst value"
    return f"{panel.title}: the best of {len(mean)} values is {best:g}, {apart}; {span}.{paper}"


def default_weights() -> str:
    """A sentence: the default β of each scale, by dataset where it has several."""

    def at(scale: str, dataset: str) -> float:
        return RunConfig(method="sastc", scale=scale, dataset=dataset).beta

    cifar = ("cifar10", "cifar100")
    told = []
    for scale in reversed(SCALES):
        known = {dataset: f"{at(scale, dataset):g}" for dataset in (("digits",) if scale == "quick" else cifar)}
        values = (
            [f"{v} on {LABELS[d]}" for d, v in known.items()] if len({*known.values()}) > 1 else [known.popitem()[1]]
        )
        told.append(f"{' and '.join(values)} ({SCALE_LABELS[scale]})")
    return f"The default β is {', '.join(told)}."


def curve(sweep: Sweep, panels: list[Panel]) -> Figure:
    """Accuracy against the setting: our panels, then the paper's; error bars are standard deviations over seeds."""
    printed = published(sweep).dropna(subset="accuracy")
    columns = len(panels) + bool(len(printed))
    figure, axes = plt.subplots(1, columns, figsize=(min(max(4.6, 3.4 * columns), WIDTH), 3.5), squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=False):
        data = grid.means(panel.runs[panel.runs.complete], ["method", "value"])
        _draw(sweep, axis, data)
        *_, kind = panel.title.partition(": ")
        if sweep is BETA:
            kind = _mark_optimum(axis, data)
        lines = [f"ours, {report.data_of(panel.runs)}", *textwrap.wrap(kind, 26)]  # panels may be narrow
        axis.set_title("\n".join(lines), fontsize=9)
    if len(printed):
        _draw(sweep, axes[0][-1], printed)
        axes[0][-1].set_title(f"the paper, {LABELS[printed.dataset.iloc[0]]}", fontsize=9)
    axes[0][0].set_ylabel("test accuracy (%)")
    figure.legend(*axes[0][-1].get_legend_handles_labels(), loc="outside lower center", ncols=len(sweep.methods))
    return figure


def _draw(sweep: Sweep, axis, data: pd.DataFrame) -> None:
    """One panel: a line a method, a horizontal line where the setting does not apply."""
    for method in sweep.methods:
        rows = data[data.method == method].sort_values("value")
        look = dict(color=COLOURS[method], label=LABELS[method])
        if rows.value.isna().all() and len(rows):
            axis.axhline(rows.accuracy.iloc[0], linestyle="--" if method == "kd" else ":", **look)
        elif len(rows):
            bars = rows.sd if "sd" in rows and rows.sd.notna().any() else None
            axis.errorbar(rows.value, rows.accuracy, bars, marker=MARKERS[method], capsize=2.5, **look)
    ticks = sorted(data.value.dropna().unique())
    if not sweep.percent and len(set(np.diff(ticks))) > 1:  # not evenly spaced
        axis.set_xscale("log")
        axis.minorticks_off()
    few = ticks if len(ticks) <= 7 else ticks[::3]
    axis.set_xticks(few, [sweep.show(v).replace(" %", "") for v in few])
    label = sweep.words + " (%)" * sweep.percent
    narrow = axis.get_subplotspec().get_gridspec().ncols > 2
    axis.set_xlabel(textwrap.fill(label, 20) if narrow else label)


def _mark_optimum(axis, data: pd.DataFrame) -> str:
    """Circle the best mean; returns it in words."""
    rows = data[data.method == "sastc"].reset_index(drop=True)
    if rows.empty:
        return ""
    best = rows.loc[rows.accuracy.idxmax()]
    axis.plot(best.value, best.accuracy, "o", markersize=12, fillstyle="none", color="black")
    return f"best mean of {len(rows)}: β = {best.value:g}"
