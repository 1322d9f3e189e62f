"""The pieces of HTML that pages are made of: tables and their downloads, numbers, intervals and lists."""

import base64
import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.stats import Difference, flat, signed


def download(content: bytes, name: str, media: str, words: str) -> str:
    """Link that holds a whole file."""
    data = base64.b64encode(content).decode()
    return f'<a class="download" download="{html.escape(name)}" href="data:{media};base64,{data}">{words}</a>'


def download_csv(rows: Sequence[dict] | pd.DataFrame, name: str) -> str:
    """The same for rows, as a CSV file; differences are written as their numbers, see :func:`companion.stats.flat`."""
    return download(flat(pd.DataFrame(rows)).to_csv(index=False).encode(), f"{name}.csv", "text/csv", "CSV")


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


def in_words(names: Sequence[str], last: str = "and") -> str:
    """``a, b and c``."""
    return "".join(names) if len(names) < 2 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def plain(value: float) -> str:
    """A number with two digits that count, without an exponent (``0.000014``); a dash for what is not known."""
    return np.format_float_positional(value, precision=2, fractional=False, trim="-") if np.isfinite(value) else "–"


def interval(d: Difference, digits: int = 2, unit: str = "", says: bool = False) -> str:
    """A mean difference, its 95 % interval and the number of pairs: ``+0.72 [+0.09, +1.35] n=5``.

    With `says`, what it allows to say as well, where there is more than one pair; and that this is for the correction
    for several differences, where the interval alone would say more.
    """
    if d.n == 0:
        return f'<span class="missing">{d.judgement if says else "–"}</span>'
    bounds = d.bounds(digits).replace(", ", ",\N{NO-BREAK SPACE}")
    ours = f'<span class="ours">{signed(d.mean, digits)}</span>{bounds} {unit}'.rstrip()
    only_corrected = d.judgement == "not distinguishable" and (d.low > 0 or d.high < 0)
    judged = f": {d.judgement}{' once corrected (Holm)' * only_corrected}" if says and d.n > 1 else ""
    over = f' title="over {d.unit}"'
    return f'<span class="interval"{over}>{ours} <span class="seeds">n={d.n}{judged}</span></span>'


def rows_table(
    caption: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    name: str = "",
    csv: Sequence[dict] | pd.DataFrame | None = None,
    *,
    kind: str = "results",
    box: str = "",
) -> str:
    """HTML table of cells that are HTML; the first of a row heads it, and a cell that brings its own tag keeps it.

    Parameters
    ----------
    name, csv : str, rows, optional
        The caption ends with a link to these rows as a CSV file of this name.
    kind, box : str
        Classes of the table, and attributes of the box around it. With the class ``cards``, a row is a card on a phone:
        its cells stand below each other and bring their heads.
    """

    def line(cells: Sequence[str], tags: Iterable[str]) -> str:
        told = (c if c.startswith(("<th", "<td")) else f"<{t}>{c}</{t[:2]}>" for c, t in zip(cells, tags, strict=True))
        return f"<tr>{''.join(told)}</tr>"

    if csv is not None:
        caption = f"{caption} Download: {download_csv(csv, name)}"
    head = line(heads, ['th scope="col"'] * len(heads))
    told = [f' data-head="{re.sub("<[^>]+>", " ", h)}"' if "cards" in kind.split() else "" for h in heads]
    body = (line(row, ['th scope="row"', *(f"td{head}" for head in told[1 : len(row)])]) for row in rows)
    return (
        f'<div class="table-box"{box}><table class="{kind}"><caption>{caption}</caption>'
        f"<thead>{head}</thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def table(
    frame: pd.DataFrame,
    caption: str,
    name: str,
    columns: Mapping[str, str | Callable[[Any], str]] | None = None,
    *,
    csv: pd.DataFrame | None = None,
    kind: str = "results",
) -> str:
    """HTML table of a frame with a link to it as CSV; the first column heads its row.

    Parameters
    ----------
    columns : mapping, optional
        Heading to column, or to a function from a row (a named tuple) to HTML; the frame's own columns by default.
    csv : pandas.DataFrame, optional
        What the download holds, if not the frame.
    kind : str
        Classes of the table, see :func:`rows_table`.
    """
    columns = columns or {column.replace("_", " "): column for column in frame}
    cells = (
        [c(row) if callable(c) else text(getattr(row, c)) for c in columns.values()]
        for row in frame.itertuples(index=False)
    )
    return rows_table(caption, list(columns), cells, name, frame if csv is None else csv, kind=kind)


def bullets(sentences: Sequence[str]) -> str:
    """HTML list of sentences."""
    return f"<ul>{''.join(f'<li>{sentence}</li>' for sentence in sentences)}</ul>"
