"""What each method of the bench is, from its own file, and what its paper reports."""

import html
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from companion import report
from companion.pages import bench, parts
from sastc.experiments import Experiment
from sastc.methods import REGISTRY, Method

LITERAL = re.compile(r"``(.+?)``", re.S)
ROLE = re.compile(r":\w+:`~?([^`]+)`")


def as_html(docstring: str) -> str:
    """The paragraphs of a docstring as HTML: literals and references become code, tables stay as they are written."""
    out = []
    for block in filter(None, re.split(r"\n\s*\n", inspect.cleandoc(docstring))):
        words = ROLE.sub(r"``\1``", block)
        if re.match(r"=+ ", words):
            out.append(f"<pre>{html.escape(words.replace('``', ''), quote=False)}</pre>")
            continue
        pieces = LITERAL.split(html.escape(" ".join(words.split()), quote=False))
        coded = [f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces)]
        out.append(f"<p>{''.join(coded)}</p>")
    return "".join(out)


def file_of(kind: type[Method]) -> tuple[Path, int, int]:
    """A method's file, and the first and last line of its class."""
    lines, first = inspect.getsourcelines(kind)
    return Path(inspect.getsourcefile(kind) or ""), first, first + len(lines) - 1


def source_link(kind: type[Method]) -> str:
    """Link to the lines of the repository that compute a method's loss; of a method of one's own, the file's name."""
    path, first, last = file_of(kind)
    words = f"{path.name}, lines {first} to {last}"
    if not path.is_relative_to(report.ROOT):
        return html.escape(words)
    place = yaml.safe_load((report.ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]
    name = path.relative_to(report.ROOT).as_posix()
    return f'<a href="{place["url"]}/blob/{place["branch"]}/{name}#L{first}-L{last}">{html.escape(words)}</a>'


def explained(plan: Experiment) -> str:
    """HTML: a paragraph a method, of the library or the plan, with formula, the lines that compute it, and source."""
    own = {c.method: c.method_class for c in plan.runs if c.method_class is not None and not c.method_class.recorded}
    kinds = REGISTRY | own
    out = []
    for name in sorted(kinds, key=lambda name: name in REGISTRY):  # one's own first
        kind = kinds[name]
        module = inspect.getmodule(kind)
        first, *rest = re.split(r"\n\s*\n", inspect.cleandoc(module.__doc__ or "") if module else "")
        more = as_html("\n\n".join(rest))
        details = f"<details><summary>Source, and what is not settled</summary>{more}</details>" if more else ""
        words = as_html(kind.__doc__) if kind.__doc__ and kind.__doc__ != Method.__doc__ else ""
        told = f"{as_html(first)}{words}<p>Computed in {source_link(kind)}.</p>{details}"
        out.append(f'<dt id="method-{name}">{html.escape(kind.label)} (<code>{name}</code>)</dt><dd>{told}</dd>')
    return f"<dl>{''.join(out)}</dl>"


def published() -> pd.DataFrame:
    """What each paper reports, ``paper/methods_reported.csv``."""
    return parts.paper("methods_reported")


def published_table() -> str:
    """HTML table of :func:`published`: none of it was run here, and no row may be compared with another."""
    rows = published()
    rows = rows.assign(label=[REGISTRY[name].label for name in rows.method])

    def known(column: str):
        return lambda r: html.escape(str(getattr(r, column))) or "–"

    def number(column: str, digits: int):
        return lambda r: "–" if pd.isna(v := getattr(r, column)) else f"{v:.{digits}f}"

    def both(above: Callable[[Any], str], below: Callable[[Any], str]) -> Callable[[Any], str]:
        return lambda r: f'{above(r)}<br><span class="seeds">{below(r)}</span>'

    columns = {
        "method": ("label", both(lambda r: html.escape(r.label), known("citation"))),
        "dataset": ("dataset", known("dataset")),
        "student, teacher": ("student", both(known("student"), known("teacher"))),
        "T": ("timesteps", number("timesteps", 0)),
        "epochs, which": ("epochs", both(number("epochs", 0), known("selection"))),
        "accuracy (%), reported": ("accuracy", number("accuracy", 2)),
        "accuracy read in": ("accuracy_from", known("accuracy_from")),
        "settings read in": ("settings_from", known("settings_from")),
        "note": (None, lambda r: html.escape(r.note)),
    }
    caption = (
        "What the methods' papers and released codes report. None of it was run here. Rows differ in student, teacher, "
        "T, epochs, augmentation and choice of the epoch: no two of them may be compared, nor any with ours. "
        "Below the epochs: the one whose accuracy is reported. “Second hand”: read in a summary or in another paper, "
        "and not in the paper itself. –: not known."
    )
    filters = ["method", "dataset", "accuracy read in"]
    return bench.sortable(rows, caption, "reported", columns, filters, "rows", rows.drop(columns="label"))


def not_reported(plan: Experiment) -> str:
    """A sentence: which methods of the plan have no row in :func:`published`."""
    known = set(published().method)
    labels = [REGISTRY[m].label for m in dict.fromkeys(c.method for c in plan.runs) if m in REGISTRY and m not in known]
    return f"No row: {', '.join(labels)}." if labels else ""
