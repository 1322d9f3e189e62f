"""The house: what may import what, what things are called, and what the book changes on finished pages."""

import ast
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import pytest
import yaml
from browsing import closed_context, served, violations

import sastc
from companion import figures
from companion.html import rows_table
from sastc.experiments import load_experiment
from sastc.records import run_path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
house = __import__("house")


def figure_of(colour):
    """HTML of a small figure with a line of one colour, marks and a clipped area."""
    drawing, axis = plt.subplots(figsize=(5, 2))
    axis.plot([0, 1], [0, 1], color=colour, marker="o")
    axis.set(xlabel="x & y", title="words")
    page = figures.as_html(drawing, "lines", 'a "line" & marks')
    plt.close(drawing)
    return page


@pytest.mark.parametrize(
    ("page", "source"),
    [
        ("runs/table7", "table7.ipynb"),
        ("runs/table2_slim", "table2.ipynb"),
        ("runs/combination/digits-a-b-kd-T2-s0-0123456789", "combination.ipynb"),
        ("runs/teacher/digits-a-s0-0123456789", "teacher.ipynb"),
        ("runs/verdicts_slim", "verdicts.ipynb"),
        ("method", None),
    ],
)
def test_pages_know_their_source(page, source):
    assert house.source_of(page) == source
    assert source is None or (ROOT / "notebooks" / source).exists()


@pytest.mark.browser
def test_wide_tables_keep_their_caption_in_sight_and_fit_on_paper(browser):
    cells = "".join(f'<td><span class="ours">{n} ± 0.50 and more</span></td>' for n in range(9))
    table = f'<table class="results"><caption>{"words " * 60}</caption><tbody><tr>{cells}</tr></tbody></table>'
    css = (ROOT / "book" / "_static" / "custom.css").read_text()
    page = browser.new_page(viewport={"width": 600, "height": 800})
    page.set_content(f'<style>{css}</style><article class="bd-article"><div class="table-box">{table}</div></article>')
    box, caption = page.locator(".table-box"), page.locator("caption")
    assert box.evaluate("box => box.scrollWidth > box.clientWidth + 200")
    box.evaluate("box => box.scrollLeft = 150")
    inside = box.bounding_box()
    assert caption.bounding_box()["x"] == pytest.approx(inside["x"], abs=1)
    assert caption.bounding_box()["width"] == pytest.approx(inside["width"], abs=1)
    page.emulate_media(media="print")
    assert box.evaluate("box => getComputedStyle(box).overflowX") == "visible"
    assert box.evaluate("box => box.scrollWidth <= box.clientWidth")
    page.close()


@pytest.mark.browser
def test_on_a_phone_the_first_column_stays_and_can_be_read(browser):
    css = (ROOT / "book" / "_static" / "custom.css").read_text()
    rows = f'<tr><th scope="row">VGG-11 &amp; ResNet-19, T=2, CIFAR-10</th>{"<td>18.862 ± 0.003</td>" * 6}</tr>'
    head = f'<thead><tr><th scope="col">student &amp; teacher</th>{"<th>Feature KD</th>" * 6}</tr></thead>'
    table = f'<div class="table-box"><table class="results">{head}<tbody>{rows}</tbody></table></div>'
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.set_content(f'<style>{css} td {{white-space: nowrap}}</style><article class="bd-article">{table}</article>')
    box = page.locator(".table-box")
    box.evaluate("box => box.scrollLeft = 200")
    for cell in page.locator("th:first-child").all():
        place = cell.bounding_box()
        assert place["x"] == pytest.approx(box.bounding_box()["x"], abs=1)
        assert 80 < place["width"] < 140
        assert cell.evaluate("cell => cell.scrollWidth <= cell.clientWidth"), "its words are inside"
        assert place["height"] < 150
    page.close()


@pytest.mark.browser
def test_on_a_phone_a_row_of_cards_is_whole_in_sight_with_its_heads(browser):
    css = (ROOT / "book" / "_static" / "custom.css").read_text()
    heads = ["student &amp; teacher", "T", *(f"SASTC −<br>{name}" for name in ("Baseline", "KD", "Feature KD"))]
    heads += ["of nothing", "a head of many words on several lines"]
    told = '+4.85 [+2.91, +6.79] <span class="seeds">n=5: not distinguishable once corrected (Holm)</span>'
    row = ["VGG-11 &amp; ResNet-19", "2", told, told, told, "", "1"]
    table = rows_table("words", heads, [row], kind="results cards")
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.set_content(f'<style>{css} td {{white-space: nowrap}}</style><article class="bd-article">{table}</article>')
    heads = page.locator("td").evaluate_all("all => all.map(td => getComputedStyle(td, '::before').content)")
    assert heads[:4] == ['"T"', '"SASTC − Baseline"', '"SASTC − KD"', '"SASTC − Feature KD"']
    assert page.locator("td").last.bounding_box()["height"] > 40, "as high as its head"
    tops = [cell.bounding_box()["y"] for cell in page.locator("tbody th, td:not(:empty)").all()]
    assert page.locator("td:empty").is_hidden()
    assert tops == sorted(set(tops)), "below each other"
    assert page.locator("thead").is_hidden()
    assert page.locator(".table-box").evaluate("box => box.scrollWidth <= box.clientWidth")
    page.set_viewport_size({"width": 1440, "height": 800})
    assert page.locator("thead").is_visible()
    assert page.locator("td").last.evaluate("td => getComputedStyle(td, '::before').content") == "none"
    page.close()


@pytest.mark.browser
def test_on_a_phone_a_setting_is_a_card(browser, tmp_path):
    (tmp_path / "source").mkdir()
    extensions = 'extensions = ["myst_parser", "run_config"]\nmyst_enable_extensions = ["attrs_inline"]\n'
    (tmp_path / "source/conf.py").write_text(extensions + 'html_theme = "basic"\n')
    (tmp_path / "source/index.md").write_text("# Config\n\n```{config-presets}\n```\n\n```{config-fields}\n```\n")
    names = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "book" / "_ext")])}
    command = [sys.executable, "-m", "sphinx", "-q", str(tmp_path / "source"), str(tmp_path / "site")]
    subprocess.run(command, env=names, check=True)
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto((tmp_path / "site/index.html").as_uri())
    page.evaluate("document.body.classList.add('bd-article')")
    page.add_style_tag(path=ROOT / "book" / "_static" / "custom.css")
    row = page.locator("table.config-fields tr", has_text="time steps T").first
    name, default, allowed, meaning = (cell.bounding_box() for cell in row.locator("td").all())
    assert name["y"] < meaning["y"] < default["y"] < allowed["y"], "below each other, the meaning second"
    assert meaning["x"] + meaning["width"] <= 390
    labels = row.locator("td").evaluate_all("all => all.map(td => getComputedStyle(td, '::before').content)")
    assert labels == ["none", '"default: "', '"allowed: "', "none"]
    presets = page.locator("table.config-presets thead")
    assert presets.is_visible(), "another kind of table"
    assert presets.locator("th").nth(1).inner_text() == "paper, CIFAR-10"
    page.set_viewport_size({"width": 1100, "height": 800})
    name = page.locator("table.config-presets .pre", has_text="resnet18_variant")
    assert name.bounding_box()["height"] < 24, "on one line"
    page.close()


@pytest.mark.browser
def test_what_stays_in_sight_in_the_explorer_does_so_in_the_book(browser):
    theme = "div.cell_output .output {max-width: 100%; overflow-x: auto}"  # the theme's rule
    css = (ROOT / "book" / "_static" / "custom.css").read_text()
    bar = '<p id="bar" style="position: sticky; top: 0">epoch</p>'
    explorer = f'<div class="sastc-explorer">{bar}<div style="height: 4000px"></div></div>'
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.set_content(
        f'<style>{theme}{css}</style><article class="bd-article"><div class="cell_output"><div class="output">'
        f"{explorer}</div></div></article>"
    )
    page.evaluate("scrollTo(0, 2000)")
    assert page.evaluate("scrollY") == 2000
    assert page.locator("#bar").bounding_box()["y"] == pytest.approx(0, abs=1)
    page.close()


@pytest.mark.browser
def test_a_dark_page_is_printed_light(browser):
    page = browser.new_page()
    page.set_content('<html data-theme="dark"><body>words</body></html>')
    page.add_script_tag(path=ROOT / "book" / "_static" / "print.js")
    theme = "document.documentElement.dataset.theme"
    page.emulate_media(media="print")
    page.wait_for_function(f"{theme} === 'light'")
    page.emulate_media(media="screen")
    page.wait_for_function(f"{theme} === 'dark'")
    page.close()


def test_wide_drawings_are_as_wide_as_the_page():
    drawing, axis = plt.subplots(figsize=(12, 2))
    axis.plot([0, 1])
    page = house.IMAGE.sub(house.drawing, figures.as_html(drawing, "wide", "words"))
    plt.close(drawing)
    assert int(re.search(r"min-width:(\d+)pt", page)[1]) == 72 * figures.WIDTH


def test_drawings_follow_the_page_and_keep_their_colours():
    with plt.rc_context({"svg.fonttype": "none"}):
        page = house.IMAGE.sub(house.drawing, figure_of("#d55e00"))
    assert "<img" not in page
    svg = re.search(r"<svg.*</svg>", page, re.S)[0]
    assert "#000000" not in svg
    assert svg.count("currentColor") > 3
    assert "#d55e00" in svg
    assert 'aria-label="a &quot;line&quot; &amp; marks"' in page
    root = ElementTree.fromstring(svg)
    ids = [node.get("id") for node in root.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    references = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    assert references
    assert references <= set(ids)


def test_two_drawings_share_no_id():
    pages = [house.IMAGE.sub(house.drawing, figure_of(colour)) for colour in ("#d55e00", "#0072b2")]
    first, second = (set(re.findall(r'\bid="([^"]+)"', page)) - {"fig-lines"} for page in pages)
    assert first
    assert not first & second


def test_download_holds_the_figure_as_drawn():
    page = house.IMAGE.sub(house.drawing, figure_of("#000000"))
    data = base64.b64decode(re.search(r'download="lines.svg" href="data:image/svg\+xml;base64,([^"]+)"', page)[1])
    assert b"#000000" in data


def test_figures_of_one_name_on_a_page_have_anchors_of_their_own():
    context = {"body": figure_of("#d55e00") + figure_of("#0072b2") + figure_of("#d55e00")}
    house.finish(None, "method", "page.html", context, None)
    found = re.findall(r'<figure class="drawing" id="([^"]+)"', context["body"])
    assert found == ["fig-lines", "fig-lines-2", "fig-lines-3"]


def test_pages_of_single_runs_are_not_searched():
    env = SimpleNamespace(metadata={})
    for env.docname in (
        "runs/combination/a-kd-T2-s0-0123456789",
        "runs/teacher/a-s0-0123456789",
        "runs/table2",
        "method",
    ):
        env.metadata[env.docname] = {}
        house.leave_out_of_search(SimpleNamespace(env=env), None)
    assert [name for name, found in env.metadata.items() if "nosearch" in found] == list(env.metadata)[:2]


def test_buttons_lead_to_the_source_notebook():
    url = "https://host/sastc/blob/main/book/runs/table7.ipynb"
    buttons = [
        {"type": "group", "buttons": [{"url": url}, {"javascript": "x"}]},
        {"type": "link", "url": "https://host"},
    ]
    context = {"header_buttons": buttons}
    house.finish(None, "runs/table7", "page.html", context, None)
    assert buttons[0]["buttons"][0]["url"] == "https://host/sastc/blob/main/notebooks/table7.ipynb"
    assert buttons[1]["url"] == "https://host"


def test_the_repository_is_named_in_one_place():
    settings = yaml.safe_load((ROOT / "_config.yml").read_text())
    url = settings["repository"]["url"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["repository-code"] == url
    config = SimpleNamespace(html_theme_options={"repository_url": url}, myst_substitutions={})
    house.substitutions(None, config)
    assert f"git clone {url}\n" in config.myst_substitutions["clone"]
    assert f"url     = {{{url}}}" in config.myst_substitutions["citation"]
    pages = [*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    pages += [*(ROOT / "sastc").rglob("*.py"), *(ROOT / "companion").rglob("*.py")]
    alone = ROOT / "notebooks" / house.ALONE  # it gets the project from there
    assert [page.name for page in pages if url in page.read_text()] == [alone.name]
    assert f'\\"{url}\\"' in alone.read_text()
    owner = url.removeprefix("https://github.com/")
    notebook = f"https://colab.research.google.com/github/{owner}/blob/main/notebooks/{house.ALONE}"
    assert f"{{button-link}} {notebook}\n" in config.myst_substitutions["colab"]


def test_only_the_notebook_that_installs_what_it_needs_has_a_button_for_colab():
    for page, wanted in (("runs/combination/a", ["Binder", "Colab"]), ("runs/table2", ["Binder"])):
        urls = {"Binder": "https://mybinder.org/x", "Colab": "https://colab.research.google.com/x"}
        buttons = [{"text": name, "url": url} for name, url in urls.items()]
        context = {"header_buttons": [{"type": "group", "label": "launch-buttons", "buttons": buttons}]}
        house.finish(None, page, "page.html", context, None)
        assert [button["text"] for button in context["header_buttons"][0]["buttons"]] == wanted


def test_what_opens_has_a_name_and_signatures_are_no_lists():
    from bs4 import BeautifulSoup

    contents = "<details><summary><span><i></i></span></summary></details>"
    context = {"body": '<dt>\n<dl>\n<dd><em class="sig-param">x</em></dd></dl></dt><dl>\n<dt>term</dt></dl>'}
    context["generate_toctree_html"] = lambda kind: BeautifulSoup(contents, "html.parser")
    house.finish(None, "method", "page.html", context, None)
    assert context["generate_toctree_html"]("sidebar").summary["aria-label"]
    assert context["body"].count('<dl role="presentation">') == 1


@pytest.mark.browser
def test_a_finished_page_holds_each_figure_once_and_saves_it_from_there(browser):
    context = {"body": figure_of("#d55e00")}
    house.finish(None, "method", "page.html", context, None)
    assert "base64" not in context["body"]
    page = browser.new_page(accept_downloads=True)
    page.set_content(f"<article>{context['body']}</article>")
    page.add_script_tag(path=ROOT / "book" / "_static" / "figures.js")
    with page.expect_download() as download:
        page.get_by_role("button", name="SVG").click()
    assert download.value.suggested_filename == "lines.svg"
    text = Path(download.value.path()).read_text()
    page.close()
    ElementTree.fromstring(text)
    assert "#d55e00" in text
    assert "#000000" in text
    assert "currentColor" not in text


@pytest.mark.browser
def test_on_a_phone_a_drawing_is_seen_whole_and_larger_on_demand(browser):
    context = {"body": figure_of("#d55e00")}
    house.finish(None, "method", "page.html", context, None)
    page = browser.new_page(viewport={"width": 340, "height": 800})
    css = (ROOT / "book" / "_static" / "custom.css").read_text()
    page.set_content(f'<style>{css}</style><article class="bd-article">{context["body"]}</article>')
    page.add_script_tag(path=ROOT / "book" / "_static" / "figures.js")
    box, hidden = page.locator(".drawing-box"), "box => box.scrollWidth - box.clientWidth"
    assert box.evaluate(hidden) == 0
    page.get_by_role("button", name="Larger").click()
    assert box.evaluate(hidden) > 0
    page.get_by_role("button", name="Smaller").click()
    assert box.evaluate(hidden) == 0
    page.set_viewport_size({"width": 1440, "height": 800})
    assert page.get_by_role("button", name="Larger").is_hidden()
    page.close()


PYTHON = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}


def notebook_page(folder, cells):
    """The HTML of a page of results made from these cells, as papermill leaves them: source, tags, output."""
    import nbformat

    (folder / "runs").mkdir()
    setup = f"""
import sys
sys.path[:0] = [{str(ROOT / "book" / "_ext")!r}, {str(ROOT)!r}]
from house import CodeBelow
extensions = ["myst_nb"]
nb_execution_mode = "off"
root_doc = "runs/page"
def setup(app):
    app.add_post_transform(CodeBelow)
"""
    (folder / "conf.py").write_text(setup)
    made = [nbformat.v4.new_markdown_cell("# Title")]
    for source, tags, shown in cells:
        cell = nbformat.v4.new_code_cell(source, metadata={"tags": tags})
        cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": f"<p>{shown}</p>"})] if shown else []
        made.append(cell)
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=PYTHON), folder / "runs" / "page.ipynb")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", str(folder), str(folder / "html")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return (folder / "html" / "runs" / "page.html").read_text()


def test_a_page_begins_with_its_answer_and_the_code_is_one_fold_below(tmp_path):
    cells = [
        ("parameter = 1", ["parameters"], ""),
        ("parameter = 2", ["injected-parameters"], ""),
        ("import setup", ["hide-input"], ""),
        ("answer()", ["hide-input"], "The answer."),
        ("figure()", ["hide-input"], "A figure."),
        ("hidden()", ["remove-input"], "Without code."),
        ("nothing()", ["hide-input"], ""),
    ]
    page = notebook_page(tmp_path, cells)
    body = page[page.index("</h1>") :]
    text = re.sub(r"<[^>]+>", "", body)
    order = ["The answer.", "parameter = 1", "parameter = 2", "import setup", "answer()", "A figure.", "figure()"]
    places = [text.index(words) for words in [*order, "Without code.", "nothing()"]]
    assert places == sorted(places)
    assert body.count("<details") == 3, "the code of four cells is one fold; nothing follows the last"
    first = body[body.index("<details") : body.index("</details>")]
    assert all(words in re.sub(r"<[^>]+>", "", first) for words in order[1:5])


def test_pages_of_runs_are_not_copied_nor_listed_on_every_page():
    from bs4 import BeautifulSoup

    contents = '<ul><li><a href="every_run.html">x</a><ul><li><a href="combination/a.html">x</a></li>'
    contents += '<li><a href="../runs/teacher/b.html">x</a></li></ul></li></ul>'
    buttons = [{"type": "group", "label": "download-buttons", "buttons": []}, {"type": "link", "label": "other"}]
    context = {"sourcename": "runs/combination/a.ipynb", "header_buttons": buttons}
    context["generate_toctree_html"] = lambda kind: BeautifulSoup(contents, "html.parser")
    house.finish(None, "runs/combination/a", "page.html", context, None)
    assert not context["sourcename"]
    assert [button["label"] for button in context["header_buttons"]] == ["other"]
    assert [a["href"] for a in context["generate_toctree_html"]("sidebar").select("a")] == ["every_run.html"]
    context = {"sourcename": "runs/table2.ipynb"}
    house.finish(None, "runs/table2", "page.html", context, None)
    assert context["sourcename"] == "runs/table2.ipynb"


def test_drawings_lose_what_is_not_seen():
    with plt.rc_context():
        figures.style()
        drawing, axis = plt.subplots(figsize=(5, 2))
        axis.plot([0, 1], [0, 1], marker="o")
        axis.text(0.3, 0.3, "0.12345")
        match = house.IMAGE.search(figures.as_html(drawing, "lines", "words"))
        plt.close(drawing)
        plain = base64.b64decode(match[2]).decode()
        page = house.drawing(match)
    assert len(page) < 0.75 * len(plain)
    assert re.findall(r"\d\.\d{3,}|<!--|>\s+<", page) == ["0.12345"], "words are left as they are"
    texts = [re.findall(r"<text[^>]*>([^<]+)</text>", svg) for svg in (plain, page)]
    assert texts[0] == texts[1]
    assert plain.count("<path") == page.count("<path")
    ids = {name.partition("-")[2] for name in re.findall(r' id="([^"]+)"', page)}
    assert ids == set(re.findall(r'(?:href="#|url\(#)([^")]+)', plain))


def test_files_that_no_page_loads_are_left_out(tmp_path):
    folder = tmp_path / "_static"
    kept = {
        "mathjax/tex-chtml.js", "mathjax/output/chtml/fonts/x.woff", "mathjax/sre/mathmaps/en.json",
        "mathjax/input/tex/extensions/color.js", "vendor/fontawesome/webfonts/x.woff2", "scripts/bootstrap.js",
    }  # fmt: skip
    others = {
        "mathjax/tex-svg.js", "mathjax/node-main.js", "mathjax/output/svg/x.js", "mathjax/sre/mathmaps/hi.json",
        "mathjax/input/mml/x.js", "mathjax/input/tex-full.js", "vendor/fontawesome/webfonts/x.ttf",
        "scripts/bootstrap.js.map", "locales/de/x.mo",
    }  # fmt: skip
    for name in kept | others:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    house.leave_out_unused(SimpleNamespace(outdir=tmp_path), None)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == kept


def imported(path):
    """Names of the packages that a module imports, also inside functions, and of modules of pages."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "sastc").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_library_imports_nothing_of_the_book(path):
    house = {"companion", "workflow", "benchmarks", "book", "tests", "notebooks"}
    drawing = {"matplotlib", "nbformat", "papermill"}
    assert not {name.split(".")[0] for name in imported(path)} & (house | drawing)


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda p: p.name)
def test_no_test_imports_another(path):
    assert not [name for name in imported(path) if name.startswith(("test_", "conftest"))], "it belongs into helpers/"


def test_type_checkers_see_the_public_names_where_they_are():
    tree = ast.parse((ROOT / "sastc" / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname: (node.module, alias.name) for node in block.body for alias in node.names}
    assert seen == {name: (f"sastc.{home}", name) for name, home in sastc._HOME.items()}


def test_the_wheel_is_the_library_alone_and_works_without_the_checkout(tmp_path):
    source, site, empty = (tmp_path / name for name in ("source", "site", "empty"))
    for name in ("sastc", "companion", "benchmarks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(tmp_path)]
    subprocess.run([sys.executable, "-m", *build, str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"sastc"}
    kept = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sastc").rglob("*") if path.is_file()}
    assert {name for name in kept if "__pycache__" not in name} <= names, "the explorer's scripts and the C++, too"
    empty.mkdir()
    code = f"""
import importlib, pkgutil, sys
sys.path = [{str(site)!r}] + [path for path in sys.path if path and path != {str(ROOT)!r}]
import sastc
assert sastc.__file__.startswith({str(site)!r}), sastc.__file__
for module in pkgutil.walk_packages(sastc.__path__, "sastc."):
    importlib.import_module(module.name)
for name in sastc.__all__:
    getattr(sastc, name)
assert not {{"companion", "benchmarks", "matplotlib"}} & set(sys.modules)
assert importlib.util.find_spec("companion") is None
print(sastc.LIF())
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = dict(cwd=empty, env=environment, capture_output=True, text=True)
    done = subprocess.run([sys.executable, "-c", code], **run)
    assert done.returncode == 0, done.stderr
    assert "LIF" in done.stdout
    assert not list(empty.iterdir())


def test_one_stem_for_one_page():
    """The experiment, its notebook, its page in the book, and the module that draws it have one name.

    An experiment without a notebook of its own is drawn by another's. Modules that several pages share have names of
    their own, and so has what is part of one page, ``forensics_costs``.
    """
    experiments = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "experiments").glob("*.yaml")}
    notebooks = {path.stem: path.read_text() for path in (ROOT / "notebooks").glob("*.ipynb")}
    modules = {path.stem for path in (ROOT / "companion" / "pages").glob("*.py")} - {"__init__"}
    toc = set(re.findall(r"file: runs/(\w+)", (ROOT / "book" / "_toc.yml").read_text()))
    used = {name: content["notebook"] for name, content in experiments.items()}
    assert all(notebook == name if name in notebooks else used[notebook] == notebook for name, notebook in used.items())
    assert set(notebooks) == {*used.values(), "combination", "teacher"}, "of one run"
    assert {re.sub("_(slim|quarter|paper)$", "", page) for page in toc} == set(experiments)
    for name in set(notebooks) & set(experiments):
        assert f'"experiment = \\"{name}\\"' in notebooks[name], "its own by default"
    users = {
        module: [name for name, text in notebooks.items() if re.search(rf"pages import .*\b{module}\b", text)]
        for module in modules
    }
    for module in modules:
        if module in notebooks:
            assert module in users[module], f"the page {module} is drawn by its module"
        else:
            part_of = [name for name in notebooks if module.startswith(f"{name}_")]
            front = module == "front"  # the book's front page, which has no notebook of its own
            assert part_of or front or len(users[module]) > 1, (
                f"pages/{module}.py has the name of no page, and only one uses it"
            )


def test_a_question_has_one_entry_and_its_editions_are_linked():
    includes = {
        "index": ["runs/table2_slim", "runs/variants_slim", "runs/table6", "every_run"],
        "runs/table2_slim": ["runs/table2"],
        "runs/variants_slim": ["runs/choices", "runs/tuning_slim"],
        "every_run": ["run", "runs/combination/digits-a-s0-0123456789"],
    }
    assert house.family("runs/table2", includes) == ["runs/table2_slim", "runs/table2"]
    assert house.family("runs/table2_slim", includes) == ["runs/table2_slim", "runs/table2"]
    assert house.family("runs/tuning_slim", includes) == ["runs/variants_slim", "runs/choices", "runs/tuning_slim"]
    for alone in ("index", "runs/table6", "every_run", "run", "runs/combination/digits-a-s0-0123456789"):
        assert house.family(alone, includes) == []
    link = "{}.html".format
    row = house.family_links("runs/table2", ["runs/table2_slim", "runs/table2"], {}, link)
    assert '<a href="runs/table2_slim.html" data-edition="slim">CIFAR-10, small-scale runs</a>' in row
    assert '<a href="runs/table2.html" aria-current="page" data-edition="quick">Digits, smoke test</a>' in row
    assert "See also" not in row
    titles = {"runs/choices": "One & all", "runs/tuning_slim": "Tuning"}
    row = house.family_links("runs/variants_slim", ["runs/variants_slim", *titles], titles, link)
    assert "edition-tabs" not in row, "one edition"
    assert '<a href="runs/choices.html">One &amp; all</a>' in row
    pages = ["runs/beta_slim", "runs/beta", "runs/batchsize"]
    titles = {"runs/batchsize": "Batch size", "runs/beta_slim": "Weight", "runs/beta": "Weight, on digits"}
    row = house.family_links("runs/beta", pages, titles, link)
    assert row.count("data-edition") == 2
    assert 'See also</span><ul><li><a href="runs/batchsize.html">' in row
    row = house.family_links("runs/batchsize", pages, titles, link)
    assert "edition-tabs" not in row, "it is no edition of the page above it"
    assert row.count("<li>") == 1, "one link a question"
    assert '<a href="runs/beta_slim.html">' in row


def test_the_strongest_evidence_is_the_first_tab():
    pages = [f"runs/table2{scale}" for scale in ("_paper", "_quarter", "_slim", "")]
    assert house.editions("runs/table2", [*pages[::-1], "runs/beta"]) == pages
    assert house.editions("runs/variants_slim", ["runs/variants_slim", "runs/choices"]) == []
    chapters = [
        c for part in yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())["parts"] for c in part["chapters"]
    ]
    for chapter in chapters:
        below = [section["file"] for section in chapter.get("sections", ()) if "file" in section]
        family = [page for page in (chapter["file"], *below) if house.experiment_of(page)]
        if family:
            first = house.editions(family[0], family)[:1]
            assert first in ([], [chapter["file"]]), "the contents lead to the first tab"


def test_an_edition_names_the_data_of_its_runs(monkeypatch, tmp_path):
    config = next(c for c in load_experiment(ROOT / "experiments/table2.yaml", "quarter").runs if c.seed == 1)
    monkeypatch.setenv("SASTC_RESULTS", str(tmp_path))
    house.edition.cache_clear()
    assert house.edition("runs/table2_quarter") == "CIFAR-10 and CIFAR-100, quarter-width runs", "none is recorded"
    shutil.copytree(run_path(config, ROOT / "results"), run_path(config, tmp_path))
    house.edition.cache_clear()
    assert house.edition("runs/table2_quarter") == "CIFAR-10, quarter-width runs"
    house.edition.cache_clear()


def test_links_of_the_contents_know_the_editions():
    includes = {"index": ["runs/table2_slim", "runs/table6"], "runs/table2_slim": ["runs/table2"]}
    wanted = {"runs/table2_slim.html": {"slim": "runs/table2_slim.html", "quick": "runs/table2.html"}}
    assert house.edition_links("index", includes, "{}.html".format) == wanted
    assert house.edition_links("runs/table2", includes, "{}.html".format) == {}, "a page's own entry stays"


TABS = [("table2_slim", "CIFAR-10", "slim"), ("table2", "Digits", "quick")]
OTHERS = {"slim": "beta_slim.html", "quick": "beta.html"}
OTHER = f"<a id='contents' href='beta_slim.html' data-editions='{json.dumps(OTHERS)}'>β</a>"


@pytest.mark.browser
@pytest.mark.parametrize("script", [True, False])
def test_editions_are_tabs_for_keys_and_remembered(browser, tmp_path, script):
    shutil.copy(ROOT / "book/_static/editions.js", tmp_path)
    shutil.copy(ROOT / "book/_static/custom.css", tmp_path)
    for page, _, _ in TABS:
        items = "".join(
            f'<li><a href="{p}.html" data-edition="{scale}"{" aria-current=page" * (p == page)}>{words}</a></li>'
            for p, words, scale in TABS
        )
        head = '<!doctype html><html lang="en"><meta charset="utf-8"><link rel="icon" href="data:,">'
        head += f'<title>{page}</title><link rel="stylesheet" href="custom.css"><script src="editions.js"></script>'
        row = f'<nav class="edition-tabs" aria-label="Data and scale"><ul>{items}</ul></nav>'
        body = f'<nav aria-label="Contents">{OTHER}</nav><main><article class="bd-article" id="main">'
        body += f"<h1>{page}</h1>{row}</article></main>"
        (tmp_path / f"{page}.html").write_text(head + body)
    faults = []
    with served(tmp_path) as base:
        page = closed_context(browser, (base,), faults, 390, java_script_enabled=script).new_page()
        page.goto(f"{base}/table2_slim.html")
        if not script:
            page.get_by_role("link", name="Digits").click()
            assert page.title() == "table2"
            assert page.get_by_role("navigation", name="Data and scale").get_by_role("link").count() == 2
            assert page.locator("#contents").get_attribute("href") == "beta_slim.html"
            page.context.close()
            return
        tabs = page.get_by_role("tablist", name="Data and scale")
        selected = tabs.get_by_role("tab", selected=True)
        assert (tabs.get_by_role("tab").count(), selected.inner_text()) == (2, "CIFAR-10")
        assert page.locator("#contents").get_attribute("href") == "beta_slim.html"
        assert violations(page, "moderate", "serious", "critical") == []
        selected.focus()
        for key, at in (("ArrowRight", "Digits"), ("ArrowRight", "CIFAR-10"), ("End", "Digits"), ("Home", "CIFAR-10")):
            page.keyboard.press(key)
            assert page.evaluate("document.activeElement.textContent") == at
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Enter")
        page.wait_for_url("**/table2.html")
        assert page.evaluate("document.activeElement.textContent") == "Digits", "keys go on from here"
        assert selected.inner_text() == "Digits"
        assert page.locator("#contents").get_attribute("href") == "beta.html", "the choice holds for other pages"
        page.goto(f"{base}/table2_slim.html")
        assert page.title() == "table2_slim", "an address is what it says"
        page.context.close()
    assert not faults


def test_old_addresses_lead_on(tmp_path):
    (tmp_path / "runs").mkdir()
    app = SimpleNamespace(outdir=tmp_path, builder=SimpleNamespace(format="html"))
    app.env = SimpleNamespace(found_docs={"index"})
    house.write_stubs(app, None)
    assert not list((tmp_path / "runs").iterdir()), "the new page is not in this book"
    app.env.found_docs |= set(house.MOVED.values())
    house.write_stubs(app, None)
    assert 'url=verdicts_slim.html"' in (tmp_path / "runs/verdicts.html").read_text()
