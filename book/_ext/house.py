"""What the theme does not know of this book, put right on its finished pages.

The pages under ``runs/`` are executed copies; buttons that edit or launch a page lead to the source in ``notebooks/``.
Drawings, which notebooks hold as images, are put into the page as SVG, so that they follow its light or dark theme.
``{{ repository }}`` and ``{{ issues }}`` link to the address in ``_config.yml``, ``{{ clone }}`` is the command that
fetches it, and ``{{ citation }}`` this companion's BibTeX entry, from ``CITATION.cff``.

A question has one entry in the contents. Its editions, by data and scale, and pages that belong to it, lie below that
page in ``_toc.yml``; a row of links at the head of each leads to the others. Old addresses lead on to the new ones.
"""

import base64
import hashlib
import html
import os
import re
import shutil
from collections import Counter
from functools import cache
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.util.docutils import SphinxRole

from companion.figures import WIDTH
from companion.report import SCALE_WORDS
from sastc.config import SCALES
from sastc.experiments import load_experiment
from sastc.labels import LABELS

ROOT = Path(__file__).parents[2]
IMAGE = re.compile(r'<img alt="([^"]*)" src="data:image/svg\+xml;base64,([^"]+)"[^>]*>')
PARAMETERS = '<dl>\n<dd><em class="sig-param">'  # Sphinx lays out long signatures as a list without terms
SVG_LINK = re.compile(
    r'<a class="download" download="([^"]+\.svg)" href="data:image/svg\+xml;base64,[^"]+">(.*?)</a>', re.S
)
RUN_PAGES = ("runs/combination/", "runs/teacher/")
MATHJAX = ("tex-chtml.js", "a11y", "input", "sre", "ui")  # what the one build that pages use may load, and its fonts
FIGURE = re.compile(r'<figure class="drawing" id="(fig-[^"]+)"')
MOVED = {"runs/verdicts": "runs/verdicts_slim"}  # old addresses


def experiment_of(docname: str) -> tuple[str, str] | None:
    """The experiment and scale of a page of results; None for other pages."""
    match = re.fullmatch(rf"runs/(\w+?)(?:_({'|'.join(SCALES)}))?", docname)
    return (match[1], match[2] or "quick") if match else None


def source_of(docname: str) -> str | None:
    """The notebook below ``notebooks/`` that a page was executed from; None for other pages."""
    if found := experiment_of(docname):
        content = yaml.safe_load((ROOT / "experiments" / f"{found[0]}.yaml").read_text(encoding="utf-8"))
        return f"{content['notebook']}.ipynb"
    match docname.split("/"):
        case ["runs", folder, _]:
            return f"{folder}.ipynb"
    return None


@cache
def edition(docname: str) -> str:
    """What a page's runs are of: ``CIFAR-10, small-scale runs``."""
    name, scale = experiment_of(docname)
    runs = load_experiment(ROOT / "experiments" / f"{name}.yaml", scale).runs
    data = " and ".join(dict.fromkeys(LABELS[config.dataset] for config in runs))
    return f"{data}, {SCALE_WORDS[scale]}"


def family(docname: str, includes: dict[str, list[str]]) -> list[str]:
    """A page of results with the pages below it in the contents, or beside it; empty where it stands alone."""
    results = {page: [c for c in below if experiment_of(c)] for page, below in includes.items() if experiment_of(page)}
    head = next((page for page, below in results.items() if docname in below), docname)
    return [head, *results[head]] if results.get(head) else []


def family_links(docname: str, pages: list[str], titles: dict[str, str], link) -> str:
    """HTML row of links: first the editions of this question, then pages that belong to it; '' where there are none."""
    own = experiment_of(docname)
    same = [page for page in pages if own and experiment_of(page)[0] == own[0]]
    rows = []
    for words, group in (("Runs on", same if len(same) > 1 else []), ("See also", [p for p in pages if p not in same])):
        names = [edition(page) if words == "Runs on" else titles[page] for page in group]
        here = [' aria-current="page"' if page == docname else "" for page in group]
        links = "".join(
            f'<li><a href="{link(page)}"{current}>{html.escape(name)}</a></li>'
            for page, name, current in zip(group, names, here, strict=True)
        )
        rows += [f"<span>{words}</span><ul>{links}</ul>"] * bool(group)
    return f'<nav class="editions" aria-label="Editions of this page">{"".join(rows)}</nav>' if rows else ""


def lead_to_family(app, pagename, templatename, context, doctree):
    """Put the row of links below a page's title."""
    if "body" in context and (pages := family(pagename, app.env.toctree_includes)):
        titles = {page: app.env.titles[page].astext() for page in pages}
        row = family_links(pagename, pages, titles, lambda page: app.builder.get_relative_uri(pagename, page))
        context["body"] = context["body"].replace("</h1>", f"</h1>{row}", 1)


def stub(target: str) -> str:
    """A page that leads on to another one."""
    address = html.escape(target)
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Moved</title>'
        f'<meta http-equiv="refresh" content="0; url={address}"><link rel="canonical" href="{address}"></head>'
        f'<body><p>This page has moved: <a href="{address}">{address}</a>.</p></body></html>'
    )


def write_stubs(app, exception):
    """Old addresses lead on, where the new page is in the book."""
    for old, new in MOVED.items():
        if exception is None and app.builder.format == "html" and new in app.env.found_docs:
            path = Path(app.outdir) / f"{old}.html"
            path.write_text(stub(os.path.relpath(f"{new}.html", Path(old).parent)), encoding="utf-8")


def drawing(match: re.Match) -> str:
    """The SVG of an image: black takes the colour of the text around it, and its ids are its own."""
    alt, data = match.groups()
    svg = base64.b64decode(data).decode()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)
    key = hashlib.sha1(data.encode()).hexdigest()[:8]
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{key}-", svg).replace("#000000", "currentColor")
    width = min(0.8 * float(re.search(r'width="([\d.]+)pt"', svg)[1]), 72 * WIDTH)  # on a narrow screen it scrolls
    look = f'aria-hidden="true" fill="currentColor" style="min-width:{width:.0f}pt"'
    label = html.escape(html.unescape(alt))
    svg = svg.replace("<svg", f"<svg {look}", 1)
    return f'<div class="drawing-box" role="img" tabindex="0" aria-label="{label}">{svg}</div>'


def name_what_opens(context):
    """The arrows that open parts of the contents are drawn; screen readers get words."""
    make = context["generate_toctree_html"]

    def named(*arguments, **options):
        contents = make(*arguments, **options)
        for summary in contents.select("summary") if hasattr(contents, "select") else ():
            summary["aria-label"] = "Pages of this part"
        for link in contents.select("a") if hasattr(contents, "select") else ():
            if any(folder in "runs/" + link.get("href", "") for folder in RUN_PAGES):
                link.find_parent("li").decompose()  # hundreds on every page; the table of all runs leads there
        return contents

    context["generate_toctree_html"] = named


def numbered(match: re.Match, seen: Counter) -> str:
    """A figure's anchor; of several with one name on a page, the second ends in ``-2``."""
    seen[name := match[1]] += 1
    return match[0] if seen[name] == 1 else match[0].replace(name, f"{name}-{seen[name]}")


class DrawingRole(SphinxRole):
    """A link to a figure of a results page: ``{drawing}`words <runs/table7#table7>` ``."""

    def run(self):
        """Make the link, or an error if there is no such page."""
        match = re.fullmatch(r"(.+) <(.+)#(.+)>", self.text)
        if not match or match[2] not in self.env.found_docs:
            error = self.inliner.reporter.error(f"no figure {self.text!r}: must be words <page#name>", line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, error)], [error]
        page = self.env.app.builder.get_relative_uri(self.env.docname, match[2])
        return [nodes.reference("", match[1], internal=True, refuri=f"{page}#fig-{match[3]}")], []


def finish(app, pagename, templatename, context, doctree):
    """Change the page's context before it is written."""
    if "body" in context:
        seen: Counter = Counter()
        body = context["body"].replace(PARAMETERS, PARAMETERS.replace("<dl>", '<dl role="presentation">'))
        body = FIGURE.sub(lambda match: numbered(match, seen), IMAGE.sub(drawing, body))
        context["body"] = SVG_LINK.sub(r'<button class="download" type="button" data-svg="\1">\2</button>', body)
    if "generate_toctree_html" in context:
        name_what_opens(context)
    if pagename.startswith(RUN_PAGES):
        context["sourcename"] = ""  # its notebook is not copied: it lies below results/notebooks
        context["header_buttons"] = [b for b in context.get("header_buttons", []) if not _downloads(b)]
    if source := source_of(pagename):
        for button in context.get("header_buttons", []):
            for entry in button.get("buttons", [button]):
                if "url" in entry:
                    entry["url"] = entry["url"].replace(f"book/{pagename}.ipynb", f"notebooks/{source}")


def _downloads(button: dict) -> bool:
    return "download" in button.get("label", "")


def keep_one_mathjax(app, exception):
    """Of MathJax's builds, delete those that no page loads: two thirds of its bytes."""
    folder = Path(app.outdir) / "_static" / "mathjax"
    others = [path for path in folder.glob("*") if path.name not in (*MATHJAX, "output")]
    for path in [*others, *folder.glob("output/svg*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def leave_out_of_search(app, doctree):
    """Pages of single runs, which have one text and differ in numbers, would stand before all others in a search."""
    if app.env.docname.startswith(RUN_PAGES):
        app.env.metadata[app.env.docname]["nosearch"] = True


def substitutions(app, config):
    """What pages say of the repository, from the places where it is set."""
    url = config.html_theme_options["repository_url"]
    folder = url.rstrip("/").rsplit("/", 1)[-1]
    clone = f"```bash\ngit clone {url}\ncd {folder}\n```"
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    entry = dict(title=f"{{{about['title']}}}", author=f"{{{' and '.join(a['name'] for a in about['authors'])}}}")
    entry |= dict(version=about["version"], url=url)
    fields = ",\n".join(f"  {name:7} = {{{value}}}" for name, value in entry.items())
    citation = f"```bibtex\n@software{{sastc_companion,\n{fields}\n}}\n```"
    found = dict(repository=f"<{url}>", issues=f"<{url}/issues>", clone=clone, citation=citation)
    config.myst_substitutions = {**config.myst_substitutions, **found}


def setup(app):
    """Connect to Sphinx; after the theme, which makes the buttons at priority 501."""
    app.add_role("drawing", DrawingRole())
    app.connect("config-inited", substitutions)
    app.connect("doctree-read", leave_out_of_search)
    app.connect("html-page-context", finish, priority=600)
    app.connect("html-page-context", lead_to_family, priority=650)
    app.connect("build-finished", keep_one_mathjax, priority=900)
    app.connect("build-finished", write_stubs, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
