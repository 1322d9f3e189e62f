"""Pieces that pages share: figures, links to runs, what opens a page, and the frame of an experiment's runs."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion import figures, report
from companion.html import bullets as bullets
from companion.html import interval as interval
from companion.html import table as table
from companion.html import text as text
from companion.stats import signed as signed
from sastc.config import RunConfig
from sastc.experiments import Experiment, load_experiment
from sastc.records import Run, run_path

PAPER = report.ROOT / "paper"


def paper(name: str) -> pd.DataFrame:
    """One table of the paper's numbers, ``paper/<name>.csv``; text cells that are empty are ''."""
    table = pd.read_csv(PAPER / f"{name}.csv")
    texts = table.select_dtypes(exclude="number").columns
    return table.assign(**{column: table[column].fillna("") for column in texts})


# HTML


def figure(drawing: Figure, name: str, alt: str, caption: str = "") -> str:
    """HTML of a figure, see :func:`companion.figures.as_html`; closes the figure. No caption: `alt` is the caption."""
    content = figures.as_html(drawing, name, caption or alt, alt)
    figures.plt.close(drawing)
    return content


def place(plan: Experiment, results: str | Path = "results") -> str:
    """What a caption says of our runs: their data, as the runs name them, and the scale."""
    names = report.data_names(report.runs_of(plan, results))
    return f"Ours: {' and '.join(names)}, {report.SCALE_WORDS[plan.scale]}." if names else "Ours: not run."


def opening(plan: Experiment, headline: str, results: str | Path = "results", runs: Sequence[Run] | None = None) -> str:
    """HTML at the head of a page of results: what the runs are of, in a few words, and the page's answer.

    Where all of them are a smoke test, the answer is that there is none, and the headline follows as an observation.
    `runs` are the plan's by default.
    """
    every = report.runs_of(plan, results) if runs is None else runs
    done = [run for run in every if run.complete]
    diverged = sum(run.diverged is not None for run in every if not run.complete)
    data = report.data_names(done)
    scales = list(dict.fromkeys(report.SCALE_WORDS[run.config.scale] for run in done))
    words = (
        [*data, *scales, f"{len(done)} run{'s' * (len(done) != 1)}" + f", {diverged} diverged" * bool(diverged)]
        if done
        else ["not run"]
    )
    chips = "".join(f"<span>{html.escape(word)}</span>" for word in words)
    if {run.config.scale for run in done} == {"quick"}:
        answer = "A smoke test: it shows that everything runs, and is no evidence for or against the paper."
        headline = f'<p class="headline">{answer}</p><p>{headline}</p>'
    else:
        headline = f'<p class="headline">{headline}</p>'
    return f'<p class="edition">{chips}</p>{headline}'


def page_name(name: str, scale: str) -> str:
    """An experiment's page at one scale, as the workflow names it."""
    return name if scale == "quick" else f"{name}_{scale}"


def page_link(name: str, scale: str, words: str) -> str:
    """Link from a page of results to another of the same scale, or of the first that the book shows if not of this."""
    shown = load_experiment(report.ROOT / "experiments" / f"{name}.yaml", "quick").of_record
    scale = scale if scale in ("quick", *shown) else (*shown, "quick")[0]
    return f'<a href="{page_name(name, scale)}.html">{words}</a>'


def run_link(name: str, words: Any) -> str:
    """Link from a page of results to the page of a run."""
    folder = "teacher" if "-teacher-" in name else "combination"
    return f'<a href="{folder}/{name}.html" title="{name}">{words}</a>'


def run_links(rows: pd.DataFrame) -> str:
    """The seeds of runs, each linked to its page."""
    links = " ".join(run_link(row.run, row.seed) for row in rows.itertuples())
    return f'<span class="seeds">seed {links}</span>' if links else '<span class="missing">–</span>'


# Runs


def frame(plan: Experiment, results: str | Path = "results") -> pd.DataFrame:
    """One row a run of an experiment: its config's fields, its numbers, what its `data` are called, folder, command.

    `switch` says what its settings change beside its method's first run, '' for nothing but the seed. `diverged` is the
    epoch in which a run without numbers stopped, its loss or weights no longer finite.
    """
    rows: list[dict[str, Any]] = []
    first: dict[str, RunConfig] = {}
    for config, run in zip(plan.runs, report.recorded(plan.runs, results), strict=True):
        row = config.to_dict() | {"accuracy": np.nan, "stm": np.nan} | (run.metrics if run else {})
        row |= {"switch": switch(config, first.setdefault(config.method, config))}
        path = run_path(config, results)
        row |= {"run": config.name, "data": report.data_name(config, run), "path": path}
        row |= {"diverged": (Run(path).diverged or {}).get("epoch", np.nan)}
        rows.append(row | {"complete": run is not None, "command": config.command})
    return pd.DataFrame(rows)


def switch(config: RunConfig, base: RunConfig) -> str:
    """What a config changes beside another one: ``gamma = 0.3``; no seed counts; '' if nothing is changed."""
    if config.variant != base.variant:
        return f"variant = {config.variant}"
    ours, theirs = config.to_dict(relevant=True), base.to_dict(relevant=True)
    seeds = ("seed", "teacher_seed", "data_seed")
    changed = {n: v for n, v in ours.items() if n not in seeds and v != theirs.get(n)}
    return ", ".join(f"{n} = {str(v).lower() if isinstance(v, bool) else v}" for n, v in changed.items())
