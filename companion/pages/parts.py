"""Pieces that pages share: tables and figures with their downloads, links to runs, differences between runs."""

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion import figures, report
from companion.report import download_csv
from sastc.config import RunConfig
from sastc.experiments import Experiment
from sastc.records import Run, run_path

PAPER = report.ROOT / "paper"


def paper(name: str) -> pd.DataFrame:
    """One table of the paper's numbers, ``paper/<name>.csv``; text cells that are empty are ''."""
    table = pd.read_csv(PAPER / f"{name}.csv")
    texts = table.select_dtypes(exclude="number").columns
    return table.assign(**{column: table[column].fillna("") for column in texts})


# HTML


def text(value: Any) -> str:
    """A cell's value in words: two decimals, thousands apart, a dash for what is not known."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if not isinstance(value, float):
        return html.escape(str(value))
    return f"{value:.0e}" if 0 < abs(value) < 0.005 else f"{value:.2f}".replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    """A difference: ``+0.50``, ``−0.50``, or a dash."""
    return f"{value:+.{digits}f}".replace("-", "−") if np.isfinite(value) else "–"


def interval(mean: float, half: float, n: int, digits: int = 2, unit: str = "") -> str:
    """A mean difference, its 95 % interval and the number of seeds, as HTML: ``+0.72 [+0.09, +1.35] n=5``."""
    if n == 0:
        return '<span class="missing">–</span>'
    bounds = report.bounds(mean, half, digits).replace(", ", ",\N{NO-BREAK SPACE}")
    ours = f'<span class="ours">{signed(mean, digits)}</span>{bounds} {unit}'.rstrip()
    return f'<span class="interval">{ours} <span class="seeds">n={n}</span></span>'


def table(
    frame: pd.DataFrame,
    caption: str,
    name: str,
    columns: Mapping[str, str | Callable[[Any], str]] | None = None,
    *,
    csv: pd.DataFrame | None = None,
) -> str:
    """HTML table of a frame with a link to it as CSV; the first column heads its row.

    Parameters
    ----------
    columns : mapping, optional
        Heading to column, or to a function from a row (a named tuple) to HTML; the frame's own columns by default.
    csv : pandas.DataFrame, optional
        What the download holds, if not the frame.
    """
    columns = columns or {column.replace("_", " "): column for column in frame}
    head = "".join(f'<th scope="col">{heading}</th>' for heading in columns)
    rows = []
    for row in frame.itertuples(index=False):
        cells = [c(row) if callable(c) else text(getattr(row, c)) for c in columns.values()]
        rows.append(f'<tr><th scope="row">{cells[0]}</th>{"".join(f"<td>{cell}</td>" for cell in cells[1:])}</tr>')
    link = download_csv(frame if csv is None else csv, name)
    return report._table(f"{caption} Download: {link}", head, rows)


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
    done = [run for run in (report.runs_of(plan, results) if runs is None else runs) if run.complete]
    data = report.data_names(done)
    scales = list(dict.fromkeys(report.SCALE_WORDS[run.config.scale] for run in done))
    words = [*data, *scales, f"{len(done)} runs"] if done else ["not run"]
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
    """Link from a page of results to another of the same scale."""
    return f'<a href="{page_name(name, scale)}.html">{words}</a>'


def run_link(name: str, words: Any) -> str:
    """Link from a page of results to the page of a run."""
    folder = "teacher" if "-teacher-" in name else "combination"
    return f'<a href="{folder}/{name}.html" title="{name}">{words}</a>'


def run_links(rows: pd.DataFrame) -> str:
    """The seeds of runs, each linked to its page."""
    links = " ".join(run_link(row.run, row.seed) for row in rows.itertuples())
    return f'<span class="seeds">seed {links}</span>' if links else '<span class="missing">–</span>'


def bullets(sentences: Sequence[str]) -> str:
    """HTML list of sentences."""
    return f"<ul>{''.join(f'<li>{sentence}</li>' for sentence in sentences)}</ul>"


# Runs


def frame(plan: Experiment, results: str | Path = "results") -> pd.DataFrame:
    """One row a run of an experiment: every field of its config, its final numbers, its folder and command.

    `switch` says what its settings change beside its method's first run, '' for nothing but the seed.
    """
    rows: list[dict[str, Any]] = []
    first: dict[str, RunConfig] = {}
    for config, run in zip(plan.runs, report.recorded(plan.runs, results), strict=True):
        row = config.to_dict() | {"accuracy": np.nan, "stm": np.nan} | (run.metrics if run else {})
        row |= {"switch": switch(config, first.setdefault(config.method, config))}
        row |= {"run": config.name, "path": run_path(config, results)}
        rows.append(row | {"complete": run is not None, "command": config.command})
    return pd.DataFrame(rows)


def switch(config: RunConfig, base: RunConfig) -> str:
    """What a config changes beside another one: ``gamma = 0.3``; seeds do not count; '' if nothing is changed."""
    if config.variant != base.variant:
        return f"variant = {config.variant}"
    ours, theirs = config.to_dict(relevant=True), base.to_dict(relevant=True)
    changed = {n: v for n, v in ours.items() if n != "seed" and v != theirs.get(n)}
    return ", ".join(f"{n} = {str(v).lower() if isinstance(v, bool) else v}" for n, v in changed.items())


def difference(rows: pd.DataFrame, value: str, key: str, one: str, other: str) -> tuple[float, float, int]:
    """Mean over common seeds of `value` where `key` is `one` less where it is `other`; half the 95 % interval; n."""
    return report.paired_difference(rows.assign(method=rows[key], accuracy=rows[value]), one, other)
