"""The paper's cells beside ours: which runs fill them, and what is said where nobody has run one."""

import dataclasses
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from companion import report
from companion.pages import parts
from sastc.config import RunConfig
from sastc.experiments import Experiment
from sastc.labels import LABELS

FIELDS = {label: name for name, label in LABELS.items()} | {"": "", "teacher_ann": "teacher"}
SAME_DATA = ("cifar10", "cifar100", "imagenet")  # runs on these may stand beside the paper's numbers


def published(name: str) -> pd.DataFrame:
    """One table of the paper, ``paper/<name>.csv``, with datasets, networks and methods named as in our configs."""
    table = parts.paper(name)
    columns = [c for c in ("dataset", "student", "teacher", "method") if c in table]
    return table.assign(**{c: [FIELDS.get(value, value) for value in table[c]] for c in columns})


def dataset_for(paper_dataset: str, template: RunConfig) -> str:
    """Dataset on which a paper's cell is run at the scale of `template`: the paper's own, or the stand-in for all."""
    return paper_dataset if template.dataset in SAME_DATA else template.dataset


def filled(plan: Experiment, wanted: Iterable[RunConfig], results: str | Path = "results") -> pd.DataFrame:
    """The experiment's runs, its teachers, and the runs that further cells want, recorded or not: :func:`parts.frame`.

    `planned` tells the experiment's own rows from cells that only the paper has.
    """
    configs = {c.identity: c for c in (*plan.runs, *plan.teachers)}
    planned = len(configs)
    for config in wanted:
        configs.setdefault(config.identity, config)
    runs = parts.frame(dataclasses.replace(plan, runs=tuple(configs.values())), results)
    return runs.assign(planned=[i < planned for i in range(len(runs))])


def subtractable(rows: pd.DataFrame, dataset: str) -> bool:
    """Whether a difference to the paper's value says something: its dataset, and its size of networks and schedule."""
    return len(rows) > 0 and set(rows.dataset) == {dataset} and set(rows.scale) == {"paper"}


def cell(rows: pd.DataFrame, paper: float | None = None, comparable: bool = False, digits: int = 2) -> str:
    """HTML of one cell: our mean ± sd, n and runs, the paper's value, and the difference where it is `comparable`.

    Without a finished run it is a dash that shows the command; without a run of that kind at all it is empty.
    """
    done = rows[rows.complete]
    if len(done):
        mean = report.mean_sd(done.accuracy, digits)
        ours = f'<span class="ours">{mean}</span> <span class="seeds">n={len(done)}</span> {parts.run_links(done)}'
    elif len(rows):
        commands = html.escape("\n".join(rows.command), quote=True)
        ours = f'<span class="missing" title="{commands}">–</span>'
    else:
        ours = ""
    if paper is None or pd.isna(paper):
        return ours
    gap = f", ours {parts.signed(done.accuracy.mean() - paper)}" if comparable and len(done) else ""
    return f'{ours}<span class="paper">paper {paper:.2f}{gap}</span>'


def not_run(runs: pd.DataFrame, plan: Experiment) -> str:
    """Collapsed list of the cells without a run and the command for each, the experiment's own first.

    A run that diverged was run.
    """
    ended = runs.diverged.notna() if "diverged" in runs else False
    missing = runs[~(runs.complete | ended)].sort_values("planned", ascending=False, kind="stable")
    if missing.empty:
        return ""
    commands = html.escape("\n".join(missing.command))
    planned = int(missing.planned.sum())
    further = len(missing) - planned
    kinds = [f"{planned} planned"] * (planned > 0) + [f"{further} more of the paper's cells"] * (further > 0)
    return (
        f"<details><summary>Not run: {', '.join(kinds)}; their commands</summary><p>Each fills one cell at this scale. "
        "Rebuild the page to include them:</p>"
        f"<pre>{html.escape(plan.command)}</pre><pre>{commands}</pre></details>"
    )


def means(runs: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Mean, standard deviation and number of finished runs by `keys`, with the runs' names and all commands."""
    rows = []
    for key, group in runs.groupby(list(keys), sort=False, dropna=False):
        done = group[group.complete]
        row = dict(zip(keys, key, strict=True))
        row |= {"accuracy": done.accuracy.mean(), "sd": done.accuracy.std(), "n": len(done)}
        rows.append(row | {"runs": " ".join(done.run), "commands": "; ".join(group.command)})
    return pd.DataFrame(rows, columns=[*keys, "accuracy", "sd", "n", "runs", "commands"])
