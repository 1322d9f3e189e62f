"""What the theme does not know of this book, put right on its finished pages.

The pages under ``runs/`` are executed copies; buttons that edit or launch a page lead to the source in ``notebooks/``.
Drawings, which notebooks hold as images, are put into the page as SVG, so that they follow its light or dark theme.
``{{ repository }}`` and ``{{ issues }}`` link to the address in ``_config.yml``, ``{{ clone }}`` is the command that
fetches it, ``{{ colab }}`` a button that opens the notebook of one run in Colab, and ``{{ citation }}`` this
companion's BibTeX entry, from ``CITATION.cff``.

Code of a notebook stands below what it shows, with the code of the cells before it that show nothing.

A question has one entry in the contents. Its editions, by data and scale, and pages that belong to it, lie below that
page in ``_toc.yml``; tabs and links at the head of each lead to the others. Old addresses lead on to the new ones.
"""

import base64
import hashlib
import html
import json
import os
import re
import shutil
from collections import Counter
from functools import cache
from pathlib import Path

import yaml
from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxRole

from companion.figures import WIDTH
from companion.report import SCALE_WORDS, recorded
from sastc.config import SCALES
from sastc.experiments import load_experiment
from sastc.labels import LABELS

ROOT = Path(__file__).parents[2]
IMAGE = re.compile(r'<img alt="([^"]*)" src="data:image/svg\+xml;base64,([^"]+)"[^>]*>')
PARAMETERS = '<dl>\n<dd><em class="sig-param">'  # Sphinx lays out long signatures as a list without terms
SVG_LINK = re.compile(
    r'<a class="download" download="([^"]+\.svg)" href="data:image/svg\+xml;base64,[^"]+">(.*?)</a>', re.S
)
BUTTONS = (  # see _static/figures.js
    r'<button class="download" type="button" data-svg="\1">\2</button> '
    '<button class="larger" type="button">Larger</button>'
)
RUN_PAGES = ("runs/combination/", "runs/teacher/")
MATHJAX = ("tex-chtml.js", "a11y", "input", "sre", "ui")  # what the one build that pages use may load, and its fonts
SPOKEN = ("base", "en", "nemeth")  # formulas are read aloud in English
UNUSED = (
    "mathjax/output/svg*", "mathjax/input/asciimath*", "mathjax/input/mml*", "mathjax/input/tex*.js",  # only TeX, CHTML
    "vendor/fontawesome/webfonts/*.ttf",  # browsers take the .woff2 beside it
    "locales", "**/*.map",
)  # fmt: skip
FIGURE = re.compile(r'<figure class="drawing" id="(fig-[^"]+)"')
ALONE = "combination.ipynb"  # the notebook that runs without a checkout
COLAB = "colab.research.google.com"
PARAMETER_CELLS = {"tag_parameters", "tag_injected-parameters"}
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
    """What a page's runs are of, or will be where none is recorded: ``CIFAR-10, small-scale runs``."""
    name, scale = experiment_of(docname)
    runs = load_experiment(ROOT / "experiments" / f"{name}.yaml", scale).runs
    known = recorded(runs, ROOT / os.environ.get("SASTC_RESULTS", "results"))
    runs = [run.config for run in known if run] or runs
    data = " and ".join(dict.fromkeys(LABELS[config.dataset] for config in runs))
    return f"{data}, {SCALE_WORDS[scale]}"


def family(docname: str, includes: dict[str, list[str]]) -> list[str]:
    """A page of results with the pages below it in the contents, or beside it; empty where it stands alone."""
    results = {page: [c for c in below if experiment_of(c)] for page, below in includes.items() if experiment_of(page)}
    head = next((page for page, below in results.items() if docname in below), docname)
    return [head, *results[head]] if results.get(head) else []


def editions(docname: str, pages: list[str]) -> list[str]:
    """Of a family, the pages of this one's experiment, the largest scale first; [] where there is one alone."""
    same = [page for page in pages if experiment_of(page)[0] == experiment_of(docname)[0]]
    return sorted(same, key=lambda page: -SCALES.index(experiment_of(page)[1])) if len(same) > 1 else []


def family_links(docname: str, pages: list[str], titles: dict[str, str], link) -> str:
    """HTML at the head of a page: tabs of the editions of this question, then pages that belong to it; '' without any.

    The tabs are links, which ``_static/editions.js`` gives the keys of tabs and a memory.
    """
    tabs = editions(docname, pages)
    first = {experiment_of(page)[0]: page for page in reversed(pages)}  # of each experiment
    others = [page for page in pages if page in first.values() and experiment_of(page)[0] != experiment_of(docname)[0]]

    def links(group: list[str], names: list[str]) -> str:
        here = [' aria-current="page"' if page == docname else "" for page in group]
        scales = [f' data-edition="{experiment_of(page)[1]}"' if group is tabs else "" for page in group]
        found = zip(group, names, here, scales, strict=True)
        return "".join(f'<li><a href="{link(p)}"{c}{s}>{html.escape(n)}</a></li>' for p, n, c, s in found)

    out = ""
    if tabs:
        row = links(tabs, [edition(page) for page in tabs])
        out += f'<nav class="edition-tabs" aria-label="Data and scale"><ul>{row}</ul></nav>'
    if others:
        row = links(others, [titles[page] for page in others])
        out += f'<nav class="see-also" aria-label="See also"><span>See also</span><ul>{row}</ul></nav>'
    return out


def lead_to_family(app, pagename, templatename, context, doctree):
    """Put the tabs and links below a page's title, and the editions' addresses into the contents."""

    def link(page: str) -> str:
        return app.builder.get_relative_uri(pagename, page) or "#"  # the page itself

    includes = app.env.toctree_includes
    if "body" in context and (pages := family(pagename, includes)):
        titles = {page: app.env.titles[page].astext() for page in pages}
        row = family_links(pagename, pages, titles, link)
        context["body"] = context["body"].replace("</h1>", f"</h1>{row}", 1)
    if "generate_toctree_html" in context:
        tell_editions(context, edition_links(pagename, includes, link))


def tell_editions(context, known: dict[str, dict[str, str]]):
    """Links of the contents hold the addresses of a page's editions by scale: ``_static/editions.js`` takes one."""
    make = context["generate_toctree_html"]

    def told(*arguments, **options):
        contents = make(*arguments, **options)
        for link in contents.select("a") if hasattr(contents, "select") else ():
            if link.get("href") in known:
                link["data-editions"] = json.dumps(known[link["href"]])
        return contents

    context["generate_toctree_html"] = told


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


def shorter(svg: str) -> str:
    """A drawing of matplotlib's without comments, indentation, ids that nothing refers to, and needless decimals."""
    svg = re.sub(r">\s+<", "><", re.sub(r"<!--.*?-->", "", svg, flags=re.S)).strip()
    names = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in names else "", svg)
    return re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), svg)  # not in texts


def drawing(match: re.Match) -> str:
    """The SVG of an image: black takes the colour of the text around it, and its ids are its own."""
    alt, data = match.groups()
    svg = base64.b64decode(data).decode()
    svg = shorter(re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S))
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


def edition_links(pagename: str, includes: dict[str, list[str]], link) -> dict[str, dict[str, str]]:
    """By address of a page in the contents, the addresses of its editions by scale, where it has several."""
    found = {}
    for head in (page for page in includes if experiment_of(page)):
        if pagename not in (pages := editions(head, family(head, includes))):
            found |= {link(head): {experiment_of(page)[1]: link(page) for page in pages}} if pages else {}
    return found


def numbered(match: re.Match, seen: Counter) -> str:
    """A figure's anchor; of several with one name on a page, the second ends in ``-2``."""
    seen[name := match[1]] += 1
    return match[0] if seen[name] == 1 else match[0].replace(name, f"{name}-{seen[name]}")


class CodeBelow(SphinxPostTransform):
    """Put a cell's folded code below its output, so that a page begins with its answer.

    The code of cells before it that show nothing, the parameters among them, goes into the same fold, in its order.
    """

    default_priority = 200  # after MyST-NB has made the folds
    formats = ("html",)

    def run(self, **kwargs):
        """Change the document."""
        ahead: list[nodes.Element] = []
        for cell in list(self.document.findall(lambda node: _is(node, "cell_code"))):
            folds = [child for child in cell.children if isinstance(child, HideCodeCellNode)]
            shows = any(_is(child, "cell_code_output") for child in cell.children)
            if not shows and (folds or PARAMETER_CELLS & set(cell["classes"])):
                ahead.append(cell)
            elif shows and folds:
                fold = folds[0]
                fold.children[:0] = [node for other in ahead for node in other.findall(_is_source)]
                for other in ahead:
                    other.parent.remove(other)
                cell.remove(fold)
                cell.append(fold)
                ahead = []


def _is(node: nodes.Node, element: str) -> bool:
    """Whether a node is this element of a notebook, in MyST-NB's words."""
    return isinstance(node, nodes.container) and node.get("nb_element") == element


def _is_source(node: nodes.Node) -> bool:
    return _is(node, "cell_code_source")


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
        context["body"] = SVG_LINK.sub(BUTTONS, body)
    if "generate_toctree_html" in context:
        name_what_opens(context)
    if pagename.startswith(RUN_PAGES):
        context["sourcename"] = ""  # its notebook is not copied: it lies below results/notebooks
        context["header_buttons"] = [b for b in context.get("header_buttons", []) if not _downloads(b)]
    source = source_of(pagename)
    for button in context.get("header_buttons", []):
        if "buttons" in button and source != ALONE:
            button["buttons"] = [b for b in button["buttons"] if COLAB not in b.get("url", "")]
    if source:
        for button in context.get("header_buttons", []):
            for entry in button.get("buttons", [button]):
                if "url" in entry:
                    entry["url"] = entry["url"].replace(f"book/{pagename}.ipynb", f"notebooks/{source}")


def _downloads(button: dict) -> bool:
    return "download" in button.get("label", "")


def leave_out_unused(app, exception):
    """Delete files of the theme and of MathJax that no page loads: more bytes than those that pages do load."""
    folder = Path(app.outdir) / "_static"
    others = [path for path in (folder / "mathjax").glob("*") if path.name not in (*MATHJAX, "output")]
    others += [path for pattern in UNUSED for path in folder.glob(pattern)]
    others += [path for path in (folder / "mathjax/sre/mathmaps").glob("*.json") if path.stem not in SPOKEN]
    for path in others:
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
    branch = config.html_theme_options.get("repository_branch") or "main"
    notebook = f"https://{COLAB}/github/{url.partition('github.com/')[2]}/blob/{branch}/notebooks/{ALONE}"
    button = f"```{{button-link}} {notebook}\n:color: primary\n:outline:\nOpen in Colab\n```"
    found = dict(repository=f"<{url}>", issues=f"<{url}/issues>", clone=clone, citation=citation, colab=button)
    config.myst_substitutions = {**config.myst_substitutions, **found}


def setup(app):
    """Connect to Sphinx; after the theme, which makes the buttons at priority 501."""
    app.add_role("drawing", DrawingRole())
    app.add_post_transform(CodeBelow)
    app.connect("config-inited", substitutions)
    app.connect("doctree-read", leave_out_of_search)
    app.connect("html-page-context", finish, priority=600)
    app.connect("html-page-context", lead_to_family, priority=650)
    app.connect("build-finished", leave_out_unused, priority=900)
    app.connect("build-finished", write_stubs, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
