"""The book's search: what is indexed, and what a browser finds in a small book built as the real one is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from browsing import closed_context, served
from docutils import nodes
from docutils.utils import new_document

from sastc.records import list_runs

ROOT = Path(__file__).parents[2]
SLIM = ROOT / "results" / "slim"
sys.path.insert(0, str(ROOT / "book" / "_ext"))
search = __import__("search")


def test_greek_letters_and_what_belongs_together_have_words():
    told = search.words("Weight β of VGG-11 and WRN-28-4 at T = 3, T=2; γ")
    assert told.startswith("Weight β beta  of VGG-11 and WRN-28-4")
    assert told.endswith("γ gamma  timesteps3 timesteps2 VGG11 WRN284")
    assert search.words("no such") == "no such"
    assert search.words("not 80.28, nor version 1.2.3.") == "not 80.28, nor version 1.2.3. 80point28"


def test_plain_words_of_html_have_neither_code_nor_footer():
    page = '<p>kept</p><td>1</td><td>2 &amp; x</td><pre>code</pre><script type="a">js</script><style>css</style>'
    page += '<dl class="footer x"><dt>Commit</dt></dl><p>also</p>'
    page += '<template>t</template><div class="rerun"><div>make</div></div>'
    assert search.plain(page).split() == ["kept", "1", "2", "&", "x", "also"]
    assert search.plain('<div class="all-runs"><td>0123456789</td></div>').split() == [], "runs are found by themselves"


def test_an_article_is_a_page_without_code_and_the_page_stays_whole():
    page = new_document("x")
    section = nodes.section("", nodes.title("", "Weight β"), nodes.paragraph("", "T=2 matters"))
    section += nodes.literal_block("", "import secret")
    section += nodes.container("", nodes.paragraph("", "hidden"), classes=["cell_input"])
    section += nodes.raw("", "<p>VGG-11</p><dl class='x'>", format="html")
    page += section
    before = page.pformat()
    told = search.article(page, "more").astext()
    for word in ("beta", "timesteps2", "VGG11", "more"):
        assert word in told
    for word in ("secret", "hidden", "<p>"):
        assert word not in told
    assert page.pformat() == before


def test_a_page_of_results_is_found_by_its_pairs():
    told = search.pairs_of("runs/table2_slim")
    assert "VGG-11 ResNet-19 T=2 SASTC" in told
    assert search.pairs_of("method") == search.pairs_of("runs/combination/x") == ""


TITLES = ("Front", "Energy", "Every run", "Table 2: accuracy", "Weight β of the loss", "Your own network or method")
CONF = f"""
import sys
sys.path.insert(0, {str(ROOT / "book" / "_ext")!r})
extensions = ["myst_nb", "search"]
html_theme = "sphinx_book_theme"
html_context = dict(default_mode="auto")
nb_execution_mode = "off"
nb_ipywidgets_js = {{}}
root_doc = "index"
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A book of six pages, with notebooks as papermill leaves them."""
    folder = tmp_path_factory.mktemp("book")
    (folder / "runs").mkdir()
    (folder / "conf.py").write_text(CONF)
    pages = "runs/table2_slim\nruns/beta_slim\nother\nbuilders\nevery_run"
    (folder / "index.md").write_text(f"# Front\n\nWords of the front page.\n\n```{{toctree}}\n{pages}\n```\n")
    text = "Here beta stands once, and 80.28. snnTorch.\n\n## One method, shown\n\n```python\nhiddenincode = 1\n```\n"
    (folder / "other.md").write_text(f"# Energy\n\n{text}")
    (folder / "builders.md").write_text("# Your own network or method\n\nsnnTorch.\n")
    (folder / "every_run.md").write_text("# Every run\n\nA table.\n")
    for name, title, text in (("table2", "Table 2: accuracy", "VGG-11"), ("beta", "Weight β of the loss", "KD at T=2")):
        output = f'<p>{text} wins.</p><dl class="footer"><dt>hiddeninfooter</dt></dl>'
        cell = nbformat.v4.new_code_cell("hiddenincode = 2", metadata={"tags": ["hide-input"]})
        cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": output})]
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"# {title}"), cell])
        nbformat.write(book, folder / "runs" / f"{name}_slim.ipynb")
    names = os.environ | {"SASTC_RESULTS": "results/slim", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", str(folder), str(folder / "html")]
    done = subprocess.run(command, env=names, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(
        folder=folder / "html", runs=[run for run in list_runs(SLIM) if run.complete] if SLIM.is_dir() else []
    )


def test_the_index_holds_articles_and_titles_as_they_are_shown(site):
    text = (site.folder / "searchindex.js").read_text()
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    assert not {"hiddenincod", "hiddenincode", "hiddeninfoot", "hiddeninfooter"} & set(index["terms"])
    assert "beta" in index["titleterms"]
    assert set(index["alltitles"]) == {*TITLES, "One method, shown"}


def test_only_the_search_page_loads_what_searches_runs(site):
    assert "search.js" in (site.folder / "search.html").read_text()
    assert "static/search.js" not in (site.folder / "index.html").read_text()
    names = (site.folder / "_static/run-names.js").read_text()
    assert len(names) < 200 * len(site.runs) + 100
    found = json.loads(names.removeprefix("window.runNames = ").removesuffix(";\n"))
    assert [name for name, _ in found] == [run.name for run in site.runs]


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1440])
def test_what_readers_look_for_is_found(site, browser, width):
    faults = []
    with served(site.folder) as base:
        page = closed_context(browser, (base,), faults, width).new_page()

        def ask(query):
            page.goto("about:blank")
            page.goto(f"{base}/search.html")
            page.locator("#search-results").wait_for(state="attached")
            page.locator(".bd-search-container input[name=q]").fill(query)
            page.keyboard.press("Enter")
            page.wait_for_selector(".search-summary:not(:empty)", state="attached")
            page.wait_for_function("window.runNames")
            return page.locator("ul.search > li > a").all_text_contents()

        assert ask("beta") == ["Weight β of the loss", "Energy"]
        page.wait_for_selector("ul.search li:nth-child(2) p.context")
        excerpts = " ".join(page.locator("p.context").all_text_contents())
        assert "beta stands once" in excerpts
        assert "hidden" not in excerpts
        assert ask("hiddenincode") == ask("hiddeninfooter") == []
        assert ask("80.28") == ["Energy"]
        assert "and 80.28" in page.locator("p.context").first.inner_text()
        assert ask("own method")[0] == ask("snnTorch")[0] == TITLES[-1]
        assert ask("VGG-11 ResNet-19 T=2")[0] == "Table 2: accuracy"
        shown = page.locator(".found-runs")
        pair = [
            r for r in site.runs if (r.config.student, r.config.teacher, r.config.timesteps) == ("vgg11", "resnet19", 2)
        ]
        pair = [run for run in pair if run.config.method_class.needs_teacher]
        assert shown.get_by_role("heading").inner_text() == f"Runs: {len(pair)}"
        link = shown.get_by_role("link", name=f"All {len(pair)}").get_attribute("href")
        assert link == "every_run.html?find=VGG-11%20ResNet-19%20T%3D2"
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        run = site.runs[-1]
        for query in (run.name[-10:], run.name[-10:-3], run.name):
            assert ask(query) == []
            assert shown.get_by_role("link").get_attribute("href") == f"run.html#{run.name}"
            page.add_style_tag(path=ROOT / "book" / "_static" / "custom.css")
            assert page.locator(".search-summary").is_hidden(), "which says that nothing is found"
        ask("nosuchword")
        assert shown.count() == 0
        page.add_style_tag(path=ROOT / "book" / "_static" / "custom.css")
        assert page.locator(".search-summary").is_visible()
        page.context.close()
    assert not faults


@pytest.mark.browser
def test_search_works_from_the_disk(site, browser):
    faults = []
    page = closed_context(browser, ("file:",), faults).new_page()
    page.goto(f"{(site.folder / 'search.html').as_uri()}?q=beta")
    page.wait_for_selector("ul.search li")
    assert page.locator("ul.search > li > a").first.inner_text() == "Weight β of the loss"
    page.wait_for_timeout(300)
    page.context.close()
    assert not faults
