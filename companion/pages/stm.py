"""Tables 1 and 5: the mismatch score (Eq. 1), and which of its open choices changes the ranking."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion import report
from companion.figures import COLOURS, MARKERS, WIDTH
from companion.html import rows_table
from companion.pages import grid, parts, sweeps
from companion.stats import Difference, difference, family
from sastc.config import METHODS, RunConfig
from sastc.experiments import Experiment
from sastc.labels import LABELS
from sastc.records import Run

EPOCHS = 10  # "average them over the last 10 epochs"
DIGITS = 3  # methods differ in the last of them


class Choice(NamedTuple):
    """One way to read Eq. 1."""

    words: str
    options: Mapping[str, Any]  # of sastc.stm.stm_from_mismatch
    distance: str = "mse"
    weights: str = ""  # whose attention weights the pairs: each run's "own", or SASTC's for "all" methods


CHOICES = (
    Choice("as here: natural logarithm of the mean over time and all pairs", {}),
    Choice("logarithm to base 2", {"log_base": "2"}),
    Choice("logarithm to base 10", {"log_base": "10"}),
    Choice("no logarithm", {"log_base": "none"}),
    Choice("Frobenius norm of the difference (the text's Euclidean distance)", {}, "euclidean"),
    Choice("pairs of equal relative depth alone", {"pairs": "one_to_one"}),
    Choice("deepest pair alone", {"pairs": "last"}),
    Choice("SASTC weighted by its attention, the others not", {}, weights="own"),
    Choice("all methods weighted by SASTC's attention", {}, weights="all"),
)


def wanted(plan: Experiment) -> Iterator[RunConfig]:
    """A run for each cell of Table 5 at the plan's scale."""
    template = plan.runs[0]
    planned = {(c.student, c.teacher, c.timesteps, c.method) for c in plan.runs}
    for row in printed().itertuples():
        if (row.student, row.teacher, row.timesteps, row.method) not in planned:
            changes = dict(dataset=grid.dataset_for(row.dataset, template), student=row.student, teacher=row.teacher)
            if row.dataset == "imagenet":  # its ResNet-18 has four stages
                changes["resnet18_variant"] = "standard"
            yield template.replace(**changes, method=row.method, timesteps=row.timesteps)


def printed() -> pd.DataFrame:
    """Table 5, which holds Table 1."""
    table = grid.published("stm_scores")
    return table[table.table == 5]


def collect(plan: Experiment, results: str | Path = "results") -> pd.DataFrame:
    """The page's runs, and cells that are not run."""
    runs = grid.filled(plan, wanted(plan), results)
    return runs[runs.method != "teacher"]


def pairs(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Title and runs of every student, teacher, T and dataset; the title names the data as the runs do."""
    keys = ["student", "teacher", "timesteps", "dataset", "resnet18_variant"]
    groups = runs.groupby(keys, sort=False)
    return [(f"{LABELS[k[0]]} & {LABELS[k[1]]}, T={k[2]}, {report.data_of(rows)}", rows) for k, rows in groups]


def pairs_run(runs: pd.DataFrame) -> str:
    """A sentence: the pairs of networks that are run, and how many of them are Table 5's."""
    done = runs[runs.complete]
    keys = ["student", "teacher", "timesteps"]
    theirs, ours = (set(rows[keys].itertuples(index=False, name=None)) for rows in (printed(), done))
    named = "; ".join(title for title, _ in pairs(done)) or "none"
    return f"Pairs that are run: {named}. {len(theirs & ours)} of Table 5's {len(theirs)} are among them."


def table(runs: pd.DataFrame) -> str:
    """Table 5 as HTML: our mean ± sd over seeds, n, the runs, and the paper's value."""
    theirs = printed().set_index(["student", "teacher", "timesteps", "method"]).stm_score
    body, frame = [], []
    for title, rows in pairs(runs):
        teacher = sweeps.taught(rows).rstrip(" .").lower()
        cells = [title.replace("&", "&amp;") + (f' <span class="seeds">{teacher}</span>' if teacher else "")]
        for method in METHODS:
            own = rows[rows.method == method]
            first = own.iloc[0] if len(own) else rows.iloc[0]
            paper = theirs.get((first.student, first.teacher, first.timesteps, method), np.nan)
            cells.append(grid.cell(own.assign(accuracy=own.stm), paper, digits=DIGITS))
            done = own[own.complete]
            ours = dict(stm=done.stm.mean(), sd=done.stm.std(), n=len(done), runs=" ".join(done.run))
            frame.append(dict(pair=title, method=method) | ours | dict(paper=paper))
        body.append(cells)
    caption = (
        "STM score, mean of the last ten epochs (or of all, where there are fewer), mean ± sd over n seeds; lower is "
        "closer. The paper's values: CIFAR-100 and ImageNet."
    )
    return rows_table(
        caption, ["student &amp; teacher", *(LABELS[m] for m in METHODS)], body, "table5", frame, kind="results cards"
    )


def notes(runs: pd.DataFrame) -> list[str]:
    """What has to be known of each pair's scores: a mean over most of the training, methods' own learning rates."""
    told = []
    for title, rows in pairs(runs):
        done = rows[rows.complete]
        lines = {path: Run(path).history.stm.to_numpy() for path in done.path}
        if lines and min(map(len, lines.values())) < 2 * EPOCHS:
            of = report.span(map(len, lines.values()))
            first = report.span(max(len(line) - EPOCHS, 0) + 1 for line in lines.values())
            ours, paper = Run(done.path.iloc[0]).config.scaled.get("epochs", (0, 0))
            papers = f" (the paper's: the last {EPOCHS} of {paper})" * (ours < paper)
            means = done.groupby("method").stm.mean()
            told.append(
                f"{title}: the scores are means from epoch {first} on of only {of}, which is most of the training"
                f"{papers}. In these epochs the score of one run varies by up to "
                f"{max(np.ptp(line[-EPOCHS:]) for line in lines.values()):.{DIGITS}f}; the methods' means lie within "
                f"{np.ptp(means):.{DIGITS}f}."
            )
        rates = done.groupby("method").learning_rate.unique()
        if len({*rates.explode()}) > 1:
            own = ", ".join(f"{LABELS[m]} {report.span(rates[m], '{:g}'.format)}" for m in METHODS if m in rates)
            told.append(
                f"{title}: the methods have learning rates of their own ({own}), so scores may differ for that reason, "
                "too."
            )
    return told


def curves(runs: pd.DataFrame) -> Figure:
    """The score by epoch, one panel a pair, one line a method: the mean over seeds and its range."""
    drawn = [(title, rows[rows.complete]) for title, rows in pairs(runs) if rows.complete.any()]
    size = min(max(4.6, 2.9 * len(drawn)), WIDTH), 3.3
    figure, axes = plt.subplots(1, len(drawn) or 1, figsize=size, squeeze=False)
    for axis, (title, rows) in zip(axes[0], drawn, strict=False):
        for method in METHODS:
            lines = [Run(path).history.stm for path in rows.path[rows.method == method]]
            if not lines:
                continue
            lines = np.stack([line[: min(map(len, lines))] for line in lines])
            epochs = np.arange(1, lines.shape[1] + 1)
            axis.plot(epochs, lines.mean(0), color=COLOURS[method], marker=MARKERS[method], label=LABELS[method])
            if len(lines) > 1:
                axis.fill_between(epochs, lines.min(0), lines.max(0), color=COLOURS[method], alpha=0.2, linewidth=0)
        axis.set(xlabel="epoch", title=title.replace(", T", ",\nT"))
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0][0].set_ylabel("STM score, ln (lower: closer)")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def score(measures: Mapping[str, np.ndarray], choice: Choice, weights: np.ndarray | None = None) -> float:
    """The score of one run under a choice: the mean over the last epochs of Eq. 1.

    `measures` are a run's, :data:`sastc.records.MEASURES`; `weights` ``(E, T, S, A)`` weight the pairs.
    """
    import torch

    from sastc.stm import stm_from_mismatch

    mismatch = measures[f"mismatch_{choice.distance}"][-EPOCHS:]  # (E, T, S, A)
    weights = [None] * len(mismatch) if weights is None else [torch.from_numpy(w) for w in weights[-EPOCHS:]]
    each = zip(mismatch, weights, strict=True)
    return float(np.mean([stm_from_mismatch(torch.from_numpy(m), weights=w, **choice.options) for m, w in each]))


def scores(rows: pd.DataFrame) -> pd.DataFrame:
    """Scores of one pair's finished runs under every choice: columns choice, method, seed, stm.

    From the recorded mismatch of every pair of layers and step; nothing is trained again. Weights for all methods are
    those of SASTC with the same seed.
    """
    rows = rows[rows.complete]
    measures = {row.run: Run(row.path).measures for row in rows.itertuples()}
    attention = {r.seed: measures[r.run]["attention"] for r in rows.itertuples() if r.method == "sastc"}
    found = []
    for choice in CHOICES:
        for row in rows.itertuples():
            weights = None
            if choice.weights == "all" or (choice.weights == "own" and row.method == "sastc"):
                if row.seed not in attention:
                    continue
                weights = attention[row.seed]
            stm = score(measures[row.run], choice, weights)
            found.append(dict(choice=choice.words, method=row.method, seed=row.seed, stm=stm))
    return pd.DataFrame(found, columns=["choice", "method", "seed", "stm"])


def ranking(found: pd.DataFrame) -> pd.DataFrame:
    """Each method's mean by choice, the `order` of the methods from the lowest up, and whether it is the `same`.

    The same as under the first choice, that is.
    """
    means = (
        found.groupby(["choice", "method"], sort=False)
        .stm.mean()
        .unstack()[[m for m in METHODS if m in set(found.method)]]
    )
    means = means.reindex([c.words for c in CHOICES if c.words in means.index])
    order = [list(row.sort_values(kind="stable").dropna().index) for _, row in means.iterrows()]
    result = means.reset_index()
    result["order"] = [" < ".join(LABELS[m] for m in methods) for methods in order]
    result["same"] = [methods == order[0] for methods in order]
    return result


def ranking_table(title: str, found: pd.DataFrame, name: str) -> str:
    """HTML table: the methods' scores under every choice, and their order."""
    ranked = ranking(found)
    columns: dict[str, Any] = {"choice": "choice"}
    for method in METHODS:
        if method in ranked:
            columns[LABELS[method]] = lambda row, m=method: _number(getattr(row, m))
    columns["order, closest first"] = lambda row: (
        row.order.replace("<", "&lt;") if row.same else (f"<strong>{row.order.replace('<', '&lt;')}</strong>")
    )
    caption = f"{title.replace('&', '&amp;')}. Mean over seeds; an order that differs from the first row's is bold."
    return parts.table(ranked, caption, name, columns)


def _number(score: float) -> str:
    return f"{score:.{DIGITS}f}" if score < 1000 else f"{score:,.0f}"


def differences(runs: pd.DataFrame) -> dict[str, dict[str, Difference]]:
    """SASTC's score less every other method's, by pair and method; one family."""
    keys = [(title, rows, other) for title, rows in pairs(runs) for other in METHODS[:-1]]
    found: dict[str, dict[str, Difference]] = {}
    every = family(difference(rows, "sastc", other, value="stm") for _, rows, other in keys)
    for (title, _, other), d in zip(keys, every, strict=True):
        found.setdefault(title, {})[other] = d
    return found


def sentences(runs: pd.DataFrame) -> list[str]:
    """What the choices do to the order, and what can be said of SASTC against each other method."""
    lines, gaps = [], differences(runs)
    for title, rows in pairs(runs):
        if not rows.complete.any():
            lines.append(f"{title} is not run.")
            continue
        ranked = ranking(scores(rows))
        changed = list(ranked.choice[~ranked.same])
        told = f"{len(changed)} of {len(ranked) - 1} other readings change the order: {'; '.join(changed)}."
        order = ranked.order[0].replace("<", "&lt;")
        lines.append(f"{title}: {order}. {told if changed else 'No other reading changes the order.'}")
        judged, several = [], ""
        for other, d in gaps[title].items():
            words = {"better": "higher", "worse": "lower"}.get(d.judgement, d.judgement)
            several = " (95 % intervals)" if d.judged else several
            judged.append(f"{LABELS[other]} {d.words(DIGITS + 1)} (n={d.n}, {words})")
        lines.append(f"SASTC's score minus that of another method{several}: {', '.join(judged)}.")
    return lines
