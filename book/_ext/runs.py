"""One table of all runs and one page that shows any of them, in place of a page a run.

``{runs-table}`` lists every complete run below the results. ``run.html#<name>`` shows one from a small script, since a
page that is opened from the disk may load scripts and nothing else. Where a run has a page of its own, because the
workflow has just executed its notebook, links lead there; all other links to runs lead to the viewer, and small pages
at their old addresses do so, too.
"""

import html
import json
import math
import os
import re
import shlex
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from docutils import nodes
from relations import addresses, siblings, tracked, used_in
from sphinx.util.docutils import SphinxDirective

from sastc.labels import LABELS, SCALE_LABELS, method_label, run_title, shown
from sastc.records import Run, list_runs

ROOT = Path(__file__).parents[2]
RESULTS = "SASTC_RESULTS"  # environment variable with the folder of the runs
LAYERS = ("attention", "distance", "cka", "mismatch_mse")  # (E, T, S, A); the last epoch is shown
LARGEST = 50_000  # bytes a run
CLASSES = 50  # a confusion matrix of more is left out: it would not fit, and nobody could read it
LINK = re.compile(r'href="(?:\.\./)?(combination|teacher)/([\w.+-]+)\.html"')


@cache
def recorded() -> tuple[Run, ...]:
    """All complete runs, in the order of the table."""
    return tuple(run for run in list_runs(ROOT / os.environ.get(RESULTS, "results")) if run.complete)


def page_of(name: str) -> str:
    """The page of a run whose notebook is executed."""
    return f"runs/{'teacher' if '-teacher-' in name else 'combination'}/{name}"


def explicit(run: Run) -> str:
    """The command with every setting that decides the run's numbers, so that no default has to be known."""
    config = run.config
    given = {argument.split("=", 1)[0] for argument in config.arguments}
    values = {n: v for n, v in config.to_dict().items() if n in given or n in config.to_dict(relevant=True)}
    words = [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()]
    return shlex.join(["python", "-m", "sastc", "train", *words])


def pack(run: Run, repository: str = "", related: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the viewer shows of a run, in a form that JSON keeps: at most ``LARGEST`` bytes, numbers to five digits.

    `related` is what the run's own files do not say: see :func:`relate`.
    """
    config, provenance, metrics, measures = run.config, run.provenance, run.metrics, run.measures
    commit = provenance.get("commit")
    settings = {name: shown(getattr(config, name)) for name in config.to_dict(relevant=True)}
    found = {
        "name": run.name, "title": run_title(run), "method": method_label(config), "scale": config.scale,
        "scale_label": SCALE_LABELS[config.scale],
        "data": provenance["data"]["name"], "command": explicit(run), "short": config.command,
        "settings": settings, "changed": sorted(config.changed), "metrics": metrics,
        "commit": commit, "commit_url": f"{repository}/commit/{commit}" if repository and commit else None,
        "dirty": provenance.get("dirty"), "teacher": provenance.get("teacher"),
        "provenance": {n: provenance[n] for n in ("started", "python", "versions", "platform", "device", "threads")
                       if n in provenance},
        "history": run.history.to_dict(orient="list"),
        "accuracy_by_step": measures["accuracy_by_step"].tolist(),
        "layers": {side: measures[f"{side}_layers"].tolist() for side in ("student", "teacher")
                   if f"{side}_layers" in measures},
        "maps": {name: measures[name][-1].tolist() for name in LAYERS if name in measures},
    }  # fmt: skip
    if len(measures["class_names"]) <= CLASSES:
        found["classes"] = measures["class_names"].tolist()
        found["confusion"] = measures["confusion"].tolist()
    found |= related or {}
    if run.has("energy.csv"):
        found["energy"] = [list(run.energy), *run.energy.to_numpy(dtype=object).tolist()]
    return _short(found)


def _short(value: Any) -> Any:
    """Numbers to five digits, and null for what is none, which JSON cannot say."""
    if isinstance(value, dict):
        return {str(name): _short(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_short(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return (int(value) if value == int(value) else float(f"{value:.5g}")) if math.isfinite(value) else None
    return value


def relate(
    runs: Iterable[Run], pages: dict[str, str] | None = None, repository: str = "", branch: str = "main"
) -> dict[str, dict[str, Any]]:
    """By run: pages that list it, other seeds and methods, its notebook, its files; `pages` are titles by name."""
    runs, pages = list(runs), pages or {}
    users, kin, files = used_in(pages), siblings(runs), tracked()
    taught: dict[str, int] = {}
    for run in runs:
        if teacher := run.provenance.get("teacher"):
            taught[teacher["run"]] = taught.get(teacher["run"], 0) + 1
    return {
        run.name: {
            "used_in": [(pages[page], f"{page}.html") for page in users.get(run.name, ())],
            "seeds": kin[run.name]["seeds"], "methods": kin[run.name]["methods"],
            "taught": taught.get(run.name, 0), "files": addresses(run, files, repository, branch),
            "notebook": f"{page_of(run.name)}.html" if page_of(run.name) in pages else None,
        }
        for run in runs
    }  # fmt: skip


def script(run: Run, repository: str = "", related: dict[str, Any] | None = None) -> str:
    """The file that the viewer loads; a long history or energy table is thinned until it fits."""
    packed = pack(run, repository, related)
    while True:
        text = json.dumps(packed, ensure_ascii=False, separators=(",", ":"))
        if len(text.encode()) <= LARGEST - 20:
            return f"showRun({text});\n"
        if len(packed["history"]["epoch"]) > 100:
            packed["history"] = {name: values[::2] for name, values in packed["history"].items()}
        elif droppable := next((name for name in ("energy", "confusion", "maps") if packed.get(name)), None):
            packed[droppable] = None
            packed.setdefault("left_out", []).append(droppable)
        else:
            return f"showRun({text});\n"


STUB = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Run {name}</title>'
    '<link rel="canonical" href="{target}"><meta http-equiv="refresh" content="0; url={target}">'
    '<p>This run is shown <a href="{target}">by the run viewer</a>.</p></html>\n'
)


def write_runs(
    site: Path, runs: Iterable[Run], pages: dict[str, str] | None = None, repository: str = "", branch: str = "main"
) -> None:
    """The scripts of all runs, and at the old address of each run that is none of the `pages` a way to the viewer.

    `pages` are titles of the book's pages by name.
    """
    runs, pages = list(runs), pages or {}
    related = relate(runs, pages, repository, branch)
    folder = site / "_static" / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    names = set()
    for run in runs:
        (folder / f"{run.name}.js").write_text(script(run, repository, related[run.name]), encoding="utf-8")
        names.add(run.name)
        page = site / f"{page_of(run.name)}.html"
        if page_of(run.name) not in pages:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(STUB.format(name=run.name, target=f"../../run.html#{run.name}"), encoding="utf-8")
    for path in folder.glob("*.js"):  # of runs that are gone
        if path.stem not in names:
            path.unlink()


# The table

COLUMNS = ("run", "data", "scale", "student & teacher", "method", "T", "seed", "accuracy (%)", "STM", "energy (nJ)",
           "commit", "settings")  # fmt: skip
FILTERS = ("data", "scale", "student & teacher", "method", "T", "seed", "settings")


def table(runs: Iterable[Run], pages: Iterable[str] = (), repository: str = "") -> str:
    """HTML table of all runs; `pages` are the names of documents that the book has."""
    pages, rows = set(pages), []
    for run in runs:
        config, metrics, provenance = run.config, run.metrics, run.provenance
        pair = LABELS[config.teacher] if config.method == "teacher" else LABELS[config.student]
        taught = config.method_class is not None and config.method_class.needs_teacher
        pair += f" & {LABELS[config.teacher]}" * taught
        changed = settings_cell([f"{name}={shown(value)}" for name, value in config.changed.items()])
        commit = provenance.get("commit")
        link = (commit or "unknown")[:10]
        if repository and commit:
            link = f'<a href="{repository}/commit/{commit}">{link}</a>'
        teacher = (provenance.get("teacher") or {}).get("run", "")
        mark = ' <span class="changes">with changes</span>' if provenance.get("dirty") else ""
        stm = metrics.get("stm")
        energy = _energy(run)
        notebook = f' <a href="{page_of(run.name)}.html">notebook</a>' if page_of(run.name) in pages else ""
        cells = [
            provenance["data"]["name"], SCALE_LABELS[config.scale], pair, method_label(config),
            str(config.timesteps) if config.takes_steps else "–", str(config.seed),
            f"{metrics['accuracy']:.2f}", "–" if stm is None else f"{stm:.3f}",
            "–" if energy is None else f"{energy:,.0f}",
        ]  # fmt: skip
        told = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        name = run.name.rsplit("-", 1)[-1]
        viewer = f'<a href="run.html#{run.name}" title="{run.name}" aria-label="run {run.name}">{name}</a>'
        facts = f'data-commit="{commit or ""}" data-teacher="{teacher}"'
        told += f"<td>{link}{mark}</td><td>{changed}</td>"
        rows.append(f'<tr {facts}><th scope="row">{viewer}{notebook}</th>{told}</tr>')
    heads = "".join(
        f'<th scope="col"{" data-filter" if column in FILTERS else ""}>{html.escape(column)}</th>' for column in COLUMNS
    )
    return (
        '<div class="all-runs"><div class="table-box" tabindex="0" role="region" aria-label="All runs">'
        f'<table class="results measured"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        '</div></div><script src="_static/all-runs.js" defer></script>'
    )


def settings_cell(settings: list[str], most: int = 4) -> str:
    """HTML of settings; of more than `most`, all but three are folded. The text of both is the same."""
    if len(settings) <= most:
        return html.escape(", ".join(settings))
    first, rest = (html.escape(", ".join(part)) for part in (settings[:3], settings[3:]))
    more = f"… {len(settings) - 3} more"
    return f'<details><summary data-more="{more}">{first}, </summary>{rest}</details>'


def _energy(run: Run) -> float | None:
    """Energy of one image, summed over the layers."""
    return run.energy["energy_nj"].sum() if run.has("energy.csv") else None


class RunsTable(SphinxDirective):
    """``{runs-table}``: see :func:`table`."""

    def run(self):
        """Make the table, anew in every build: runs come and go while the page's source stays."""
        self.env.note_reread()
        url = self.config.html_theme_options.get("repository_url", "")
        return [nodes.raw("", table(recorded(), self.env.found_docs, url), format="html")]


def viewer() -> str:
    """The viewer's script, after the explorer's drawings that it uses."""
    parts = [ROOT / "sastc" / "explorer" / name for name in ("data.js", "draw.js")] + [ROOT / "book/_ext/run.js"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in parts)
    return f'(() => {{\n"use strict";\n{text}\n}})();\n'


# Sphinx


def lead_to_viewer(app, pagename, templatename, context, doctree):
    """Links to pages of runs that are not among the book's lead to the viewer, which has no page before or after."""
    if pagename == "run":
        context.update(prev=None, next=None)
    if "body" not in context:
        return
    root = "../" * pagename.count("/")

    def target(match: re.Match) -> str:
        known = f"runs/{match[1]}/{match[2]}" in app.env.found_docs
        return match[0] if known else f'href="{root}run.html#{match[2]}"'

    context["body"] = LINK.sub(target, context["body"])


def finish(app, exception):
    """Write what the viewer loads, with the explorer's drawings in its script."""
    if exception is not None or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    (static / "run.js").write_text(viewer(), encoding="utf-8")  # not below book/_static, which every page loads whole
    shutil.copy(Path(__file__).with_name("all-runs.js"), static)
    url = app.config.html_theme_options.get("repository_url", "")
    titles = {page: app.env.titles[page].astext() for page in app.env.found_docs if page in app.env.titles}
    branch = app.config.html_theme_options.get("repository_branch") or "main"
    write_runs(Path(app.outdir), recorded(), titles, url, branch)


def setup(app):
    """Connect to Sphinx; after house.py, which finishes the pages."""
    app.add_directive("runs-table", RunsTable)
    app.connect("html-page-context", lead_to_viewer, priority=700)
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
