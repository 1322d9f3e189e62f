"""Table 2 whole: every cell of the paper, what is run of it here, and the gain of each method at a glance."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion import report
from companion.figures import COLOURS, MARKERS, WIDTH
from companion.html import rows_table
from companion.html import table as html_table
from companion.pages import grid
from companion.stats import Images, holm, images
from sastc.config import METHODS, RunConfig
from sastc.experiments import Experiment
from sastc.labels import LABELS
from sastc.records import Run


def published() -> pd.DataFrame:
    """The paper's Table 2; a baseline has no teacher and stands once for each student, T and dataset."""
    return grid.published("cifar_accuracy")


def wanted(plan: Experiment) -> Iterator[RunConfig]:
    """A run for each cell that the plan leaves out, like the run of its method in the plan that changes least."""
    least = sorted(plan.runs, key=lambda config: len(config.changed), reverse=True)
    templates = dict.fromkeys(METHODS, least[-1]) | {config.method: config for config in least}
    have = {_key(c.dataset, c.student, c.teacher, c.timesteps, c.method) for c in plan.runs}
    for row in published().itertuples():
        template = templates[row.method]
        dataset = grid.dataset_for(row.dataset, template)
        if _key(dataset, row.student, row.teacher, row.timesteps, row.method) in have:
            continue
        changes = dict(dataset=dataset, student=row.student, method=row.method)
        if row.teacher:
            changes["teacher"] = row.teacher
        else:  # a baseline measures its mismatch to the first teacher of its student
            same = published().query("student == @row.student and dataset == @row.dataset and teacher != ''")
            changes["teacher"] = same.teacher.iloc[0]
        yield template.replace(**changes, timesteps=row.timesteps, seed=0)


def _key(dataset: str, student: str, teacher: str, timesteps: int, method: str) -> tuple[str, str, str, int, str]:
    return dataset, student, "" if method == "baseline" else teacher, timesteps, method


def collect(plan: Experiment, results: str | Path = "results") -> pd.DataFrame:
    """The experiment's runs and a row for every cell of the paper that it leaves out."""
    runs = grid.filled(plan, wanted(plan), results)
    return runs[runs.method != "teacher"]


def cells(runs: pd.DataFrame) -> Iterator[tuple[pd.Series, str, pd.DataFrame, float]]:
    """Every pair and T of the paper, then those that only we run: that row, a method, our runs, the paper's value."""
    table, columns = published(), ["dataset", "student", "teacher", "timesteps"]
    keys = table[table.teacher != ""][columns].drop_duplicates()
    ours = runs[runs.planned & (runs.method != "baseline")][columns].drop_duplicates()
    elsewhere = ~ours.dataset.isin(grid.SAME_DATA)  # stands for any dataset of the paper
    printed = [set(keys[names].itertuples(index=False, name=None)) for names in (columns, columns[1:])]
    rows = ours.itertuples(index=False, name=None)
    new = [row not in printed[0] and not (e and row[1:] in printed[1]) for row, e in zip(rows, elsewhere, strict=True)]
    keys = pd.concat([keys, ours[new]], ignore_index=True)
    keys = keys.iloc[keys.groupby(columns[:3], sort=False).ngroup().argsort(kind="stable")]
    value = table.set_index(["dataset", "student", "teacher", "timesteps", "method"]).accuracy
    for _, key in keys.iterrows():
        rows = runs[(runs.student == key.student) & (runs.timesteps == key.timesteps)]
        rows = rows[(rows.dataset == key.dataset) | ~rows.dataset.isin(grid.SAME_DATA)]
        for method in METHODS:
            own = rows[rows.method == method]
            teacher = "" if method == "baseline" else key.teacher
            own = own[own.teacher == teacher] if teacher else own
            yield key, method, own, value.get((key.dataset, key.student, teacher, key.timesteps, method), np.nan)


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a cell: our mean, sd and n, the paper's value, and the difference where size and data are the paper's."""
    rows = []
    for key, method, own, paper in cells(runs):
        done = own[own.complete]
        same = grid.subtractable(done, key.dataset)
        row = key.to_dict() | dict(method=method, accuracy=done.accuracy.mean(), sd=done.accuracy.std(), n=len(done))
        row |= dict(paper=paper, difference=done.accuracy.mean() - paper if same else np.nan)
        rows.append(row | dict(runs=" ".join(done.run), commands="; ".join(own.command)))
    return pd.DataFrame(rows)


def table(runs: pd.DataFrame) -> str:
    """Table 2 as HTML: the rows that are run, with their teachers, then the others folded; CSV of all."""
    grouped: dict[tuple, list[tuple[str, pd.DataFrame, float]]] = {}
    for key, method, own, paper in cells(runs):
        grouped.setdefault(tuple(key), []).append((method, own, paper))
    taught = {key: [own for method, own, _ in row if method != "baseline"] for key, row in grouped.items()}
    run = {key: any(own.complete.any() for own in rows) for key, rows in taught.items()}  # a baseline is in many rows
    caption = (
        "Test accuracy in percent after the last epoch, mean ± sd over n seeds; the seeds link to their runs. Below it "
        "the paper's value, and at the paper's scale and on its dataset ours minus the paper's. A baseline has no "
        "teacher: one run stands in every row of its student and T."
    )
    shown = {key: row for key, row in grouped.items() if run[key]}
    found = _table(shown, caption, summary(runs)) if shown else ""
    others = {key: row for key, row in grouped.items() if not run[key]}
    if not others:
        return found
    caption = "Rows of the paper's Table 2 of which no distillation is run here. A baseline has no teacher: where one "
    rest = _table(others, caption + "stands, it is the one of its student and T.")
    words = f"{len(others)} rows of the paper of which no distillation is run"
    return f"{found}<details><summary>{words}</summary>{rest}</details>"


def _table(
    grouped: dict[tuple, list[tuple[str, pd.DataFrame, float]]], caption: str, csv: pd.DataFrame | None = None
) -> str:
    body, last = [], None
    for (dataset, student, teacher, timesteps), row in grouped.items():
        of = report.data_of(pd.concat([own for _, own, _ in row])) or LABELS[dataset]
        name = f"{LABELS[student]} &amp; {LABELS[teacher]}<br><span class='seeds'>{of}</span>"
        pair = (student, teacher, of)
        first = f'<th scope="row" class="again">{name}</th>' if pair == last else name
        columns = [grid.cell(own, paper, grid.subtractable(own[own.complete], dataset)) for _, own, paper in row]
        taught = teachers(pd.concat([own for method, own, _ in row if method != "baseline"]))
        body.append([first, str(timesteps), taught, *columns])
        last = pair
    heads = ["student &amp; teacher", "T", "teacher", *(LABELS[m] for m in METHODS)]
    return rows_table(caption, heads, body, "table2", csv, kind="results cards")


def teachers(rows: pd.DataFrame) -> str:
    """The accuracy of the teachers of some runs, as their records have it; a dash where none is known."""
    done = [run for path in rows.path[rows.complete] if (run := Run(path)).has("provenance.json")]
    known = {run.provenance["teacher"]["accuracy"] for run in done if run.provenance.get("teacher")}
    return report.span(known, "{:.2f}".format) if known else "–"


def overview(runs: pd.DataFrame) -> Figure:
    """Gain over the baseline of every pair, T and method: ours filled above, the paper's hollow below."""
    data = summary(runs)
    keys = ["dataset", "student", "teacher", "timesteps"]
    base = data[data.method == "baseline"].set_index(keys)[["accuracy", "paper"]]
    data = data[data.method != "baseline"].merge(base, left_on=keys, right_index=True, suffixes=("", "_baseline"))
    pairs = data[["dataset", "student", "teacher"]].drop_duplicates().reset_index(drop=True)
    steps = sorted(data.timesteps.unique())
    figure, axes = plt.subplots(1, len(steps), sharey=True, sharex=True, figsize=(WIDTH, 0.48 * len(pairs) + 1.4))
    for axis, t in zip(axes, steps, strict=True):
        for y, pair in pairs.iterrows():
            rows = data[(data.timesteps == t) & (data[list(pair.index)] == pair).all(axis=1)].set_index("method")
            for lane, column, fill in ((-0.17, "accuracy", "full"), (0.17, "paper", "none")):
                gain = rows[column] - rows[f"{column}_baseline"]
                axis.plot(gain, np.full(len(gain), y + lane), color="#bbbbbb", linewidth=1, zorder=1)
                for method in gain.dropna().index:
                    look = dict(color=COLOURS[method], marker=MARKERS[method], fillstyle=fill, linestyle="none")
                    axis.plot(gain[method], y + lane, **look)
        axis.axvline(0, color=COLOURS["baseline"], linewidth=1.2)
        axis.set_title(f"T = {t}")
        axis.grid(False, axis="y")
        for y in np.flatnonzero(pairs.dataset.ne(pairs.dataset.shift()))[1:]:
            axis.axhline(y - 0.5, color="#999999", linewidth=0.8)
    axes[len(axes) // 2].set_xlabel("gain over baseline (points)")  # one for all: three do not fit beside each other
    for dataset, rows in pairs.groupby("dataset"):
        place = dict(transform=axes[-1].get_yaxis_transform(), rotation=270, va="center", color="#808080")
        axes[-1].text(1.03, rows.index.to_numpy().mean(), LABELS[dataset], **place)
    names = [f"{LABELS[p.student]} & {LABELS[p.teacher]}" for p in pairs.itertuples()]
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    handles = [
        plt.Line2D([], [], color=COLOURS[m], marker=MARKERS[m], linestyle="none", label=LABELS[m]) for m in METHODS[1:]
    ]
    for fill, words in (("full", "ours"), ("none", "paper")):
        look = dict(color="black", marker="o", linestyle="none", fillstyle=fill)
        handles.append(plt.Line2D([], [], **look, label=words))
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure


def sentences(runs: pd.DataFrame) -> list[str]:
    """How much of the table is run, and in how many rows SASTC has the highest value, here and in the paper."""
    data = summary(runs)
    once = data.drop_duplicates("commands")  # a baseline stands in several rows
    run, ended = int((once.n > 0).sum()), runs.complete | runs.diverged.notna()
    others, planned, left = (int(n.sum()) for n in (~ended & ~runs.planned, runs.planned, runs.planned & ~ended))
    told = f"{left} of the {planned} runs that are planned at this scale are not run" if left else ""
    told = told or f"All {planned} runs that are planned at this scale are run"
    lines = [
        f"{run} of the {len(once)} cells of this table are run, by {int(runs.complete.sum())} runs; a baseline counts "
        "once, though it stands in every row of its student and T. "
        f"{told}{f'; {others} of the cells are not planned' * bool(others)}."
    ]
    keys = ["dataset", "student", "teacher", "timesteps"]
    for column, who in (("accuracy", "Here"), ("paper", "In the paper")):
        whole = data.pivot_table(index=keys, columns="method", values=column).dropna()
        if len(whole) and set(METHODS) <= set(whole):
            best = int((whole.idxmax(axis=1) == "sastc").sum())
            lines.append(f"{who}, SASTC has the highest mean in {best} of the {len(whole)} rows that are complete.")
    return lines


def answers(run: Run, data: str | Path = "data") -> np.ndarray | None:
    """Whether a run's network is right, for each test image; ``None`` without its predictions, or the data at hand.

    The labels are of the dataset; they are the run's if they give its recorded confusion matrix.
    """
    from sastc.build import dataset_options  # here, since it imports torch

    measures = run.measures
    if "predicted" not in measures:
        return None
    try:
        labels = _test_labels(tuple(dataset_options(run.config).items()), str(data))
    except (OSError, ValueError):
        return None
    predicted, confusion = measures["predicted"].astype(int), measures["confusion"]
    if len(labels) != len(predicted):
        return None
    classes = len(confusion)
    counted = np.bincount(classes * labels + predicted, minlength=classes**2).reshape(confusion.shape)
    return labels == predicted if (counted == confusion).all() else None


@functools.lru_cache(maxsize=4)
def _test_labels(options: tuple[tuple[str, Any], ...], data: str) -> np.ndarray:
    from sastc.data import load_dataset

    return load_dataset(**dict(options), root=data).test.labels.numpy()


def over_images(runs: pd.DataFrame, data: str | Path = "data") -> pd.DataFrame:
    """McNemar's test of SASTC and each other method: a row a pair, T, method and seed, and one of all seeds together.

    That one adds the counts of the seeds (:func:`companion.stats.images`); its p-values are corrected as one family.
    """
    right = {r.run: a for r in runs[runs.complete].itertuples() if (a := answers(Run(r.path), data)) is not None}
    rows: list[dict] = []
    known = runs[runs.run.isin(right)]
    for key, mine in known[known.method == "sastc"].groupby(list(report.PAIR), sort=False):
        at = dict(zip(report.PAIR, key, strict=True))
        for other in METHODS[:-1]:
            alike = [known[k] == v for k, v in at.items() if k != "teacher" or other != "baseline"]
            same = known[np.logical_and.reduce([known.method == other, *alike])]
            counts = {}
            for row in mine.itertuples():
                taught = (same.teacher_seed == row.teacher_seed) | (other == "baseline")
                theirs = same[(same.seed == row.seed) & taught]
                if len(theirs) == 1:
                    name = f"{row.seed}, teacher {row.teacher_seed}" if mine.seed.duplicated().any() else str(row.seed)
                    counts[name] = images(right[row.run], right[theirs.run.iloc[0]])
            if counts:
                counts["all"] = sum(counts.values(), Images(0, 0))
            rows += [at | dict(other=other, seed=s, sastc=c.first, others=c.second, p=c.p) for s, c in counts.items()]
    found = pd.DataFrame(rows, columns=[*report.PAIR, "other", "seed", "sastc", "others", "p"])
    return found.assign(p_holm=holm(list(found.p.where(found.seed == "all"))))


def images_table(runs: pd.DataFrame, data: str | Path = "data") -> str:
    """HTML table of :func:`over_images`; '' where no two runs have predictions and labels."""
    found = over_images(runs, data)
    if found.empty:
        return ""
    columns = {
        "student &amp; teacher": lambda r: f"{LABELS[r.student]} &amp; {LABELS[r.teacher]}, T={r.timesteps}",
        "SASTC beside": lambda r: LABELS[r.other],
        "seed": "seed",
        "SASTC alone right": "sastc",
        "the other alone right": "others",
        "p": lambda r: f"{r.p:.2g}",
        "p, corrected": lambda r: "" if np.isnan(r.p_holm) else f"{r.p_holm:.2g}",
    }
    caption = (
        "McNemar's exact test on the test images: on how many just one of two networks of the same seed is right. Rows "
        "of all seeds add the counts; their p-values are corrected for their number (Holm). It asks whether these "
        "networks differ on images like these; whether the methods do, over trainings, say the intervals above."
    )
    return html_table(found, caption, "table2-images", columns)
