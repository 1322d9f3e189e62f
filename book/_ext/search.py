"""The book's search: over articles, not code or footers; with words for Greek letters; and over all recorded runs.

Sphinx indexes what :func:`article` leaves of a page. There β is also ``beta``, and what belongs together is one word:
``VGG-11`` is ``vgg11``, ``T=2`` is ``timesteps2``, ``80.28`` is ``80point28``; ``search.js`` does the same with what is
looked for. Runs are not in that index: ``_static/run-names.js``, which the search page alone loads, has one line of
words for each.
"""

import html
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from docutils import nodes
from relations import PAGE
from runs import recorded

from sastc.experiments import load_experiment
from sastc.labels import LABELS, method_label, run_title
from sastc.records import Run

ROOT = Path(__file__).parents[2]
GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "η": "eta", "θ": "theta", "λ": "lambda",
    "μ": "mu", "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega",
}  # fmt: skip
HIDDEN = re.compile(
    r'<(script|style|template|pre|svg)\b.*?</\1>|<dl class="footer.*?</dl>|<div class="(?:rerun|all-runs)".*',
    re.DOTALL | re.I,
)
TOGETHER = (
    (re.compile(r"\bT\s*=\s*(\d+)"), r"timesteps\1"),
    (re.compile(r"\b([A-Za-z]+)-(\d+)(?:-(\d+))?\b"), r"\1\2\3"),
    (re.compile(r"(?<![\w.])(\d+)\.(\d+)(?!\w|\.\d)"), r"\1point\2"),  # Sphinx finds no word of digits alone
)


def words(text: str) -> str:
    """A text with the words added under which it may be looked for."""
    named = re.sub("[" + "".join(GREEK) + "]", lambda match: f"{match[0]} {GREEK[match[0]]} ", text)
    found = [match.expand(to) for pattern, to in TOGETHER for match in pattern.finditer(text)]
    return " ".join([named, *dict.fromkeys(found)])


def plain(source: str) -> str:
    """The words of HTML as a reader sees them: no code, no footer, no tags."""
    return html.unescape(re.sub(r"<[^>]*>", " ", HIDDEN.sub(" ", source)))


def article(doctree: nodes.document, more: str = "") -> nodes.document:
    """A copy of a page that holds what is to be found, and `more` words."""
    copy = doctree.deepcopy()
    for node in list(copy.findall(lambda n: isinstance(n, nodes.literal_block) or _is_aside(n))):
        if node.parent is not None:
            node.parent.remove(node)
    for node in list(copy.findall(nodes.raw)):
        seen = plain(node.astext()) if "html" in node.get("format", "") else ""
        node.parent.replace(node, nodes.paragraph("", words(seen)))
    for title in list(copy.findall(nodes.title)):
        title.children = [nodes.Text(title.astext())]  # as one text, so that what belongs together is together
        title.children[0].parent = title
    for text in list(copy.findall(nodes.Text)):
        if (told := words(text.astext())) != text.astext():
            text.parent.replace(text, nodes.Text(told))
    if more:
        copy += nodes.paragraph("", words(more))
    return copy


def _is_aside(node: nodes.Node) -> bool:
    """Code of a notebook, or a list of other pages' titles."""
    return isinstance(node, nodes.Element) and bool({"cell_input", "toctree-wrapper"} & set(node.get("classes", ())))


def pairs_of(docname: str) -> str:
    """Pairs, time steps and methods of a page of results, which its tables spread over rows and columns."""
    match = PAGE.fullmatch(docname)
    path = ROOT / "experiments" / f"{match[1]}.yaml" if match else None
    if path is None or not path.is_file():
        return ""
    runs = [config for config in load_experiment(path, match[2] or "quick").runs if config.method != "teacher"]
    told = (f"{LABELS[c.student]} {LABELS[c.teacher]} T={c.timesteps} {method_label(c)}" for c in runs)
    return " ".join(dict.fromkeys(told))


def run_names(runs: Iterable[Run]) -> str:
    """The script with every run's name and title."""
    lines = [[run.name, run_title(run)] for run in runs]
    return f"window.runNames = {json.dumps(lines, ensure_ascii=False, separators=(',', ':'))};\n"


# Sphinx


def index_articles(app):
    """Have the builder index articles in place of pages."""
    if app.builder.format != "html":
        return
    index = app.builder.index_page

    def index_article(name: str, doctree: nodes.document, title: str) -> None:
        index(name, article(doctree, pairs_of(name)), title)
        titles = {words(node.astext()): node.astext() for node in doctree.findall(nodes.title)}
        listed = app.builder.indexer._all_titles  # shown in results, so without the words that were added
        listed[name] = [(titles.get(told, told), anchor) for told, anchor in listed.get(name, [])]

    app.builder.index_page = index_article


def add_script(app, pagename, templatename, context, doctree):
    """The search page has a script of its own, which runs after Sphinx's and before the search."""
    if pagename == "search":
        app.add_js_file("search.js", loading_method="defer", priority=900)


def finish(app, exception):
    """Write what the search page loads."""
    if exception is None and app.builder.format == "html":
        static = Path(app.outdir) / "_static"
        shutil.copy(Path(__file__).with_name("search.js"), static)
        (static / "run-names.js").write_text(run_names(recorded()), encoding="utf-8")


def setup(app):
    """Connect to Sphinx."""
    app.connect("builder-inited", index_articles)
    app.connect("html-page-context", add_script)
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
