"""One table of all runs and one viewer: what they show, what a run costs, where links lead."""

import csv
import html
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from browsing import closed_context, served, violations
from engines import ENGINES

from sastc.config import RunConfig, parse_arguments
from sastc.records import Run, find_run, list_runs, seal, write_json

ROOT = Path(__file__).parents[2]
SLIM = ROOT / "results" / "slim"
URL = "https://host/sastc"
sys.path.insert(0, str(ROOT / "book" / "_ext"))
runs = __import__("runs")
relations = __import__("relations")
PAGES = {
    "runs/table2_slim": "Table 2: accuracy",
    "runs/beta_slim": "Weight β",
    "runs/explorer": "Explorer",
    "index": "Front",
    "runs/combination/x": "x",
}

pytestmark = pytest.mark.skipif(not SLIM.is_dir(), reason="needs the recorded runs")


def finished():
    """The recorded runs but for those that diverged, which have no page."""
    return [run for run in list_runs(SLIM) if run.complete]


def some(*methods):
    """The first recorded run of each method."""
    recorded = finished()
    return [next(run for run in recorded if run.config.method == method) for method in methods]


def packed(run):
    text = runs.script(run, URL)
    return json.loads(text.removeprefix("showRun(").removesuffix(");\n")), len(text.encode())


def test_every_recorded_run_is_one_small_file(tmp_path):
    recorded = finished()
    runs.write_runs(tmp_path, recorded, repository=URL)
    files = sorted((tmp_path / "_static/runs").glob("*.js"))
    assert [file.stem for file in files] == sorted(run.name for run in recorded)
    assert max(file.stat().st_size for file in files) <= runs.LARGEST
    stubs = list((tmp_path / "runs").rglob("*.html"))
    assert len(stubs) == len(recorded)
    assert all(stub.stat().st_size < 1000 for stub in stubs)


def test_files_of_runs_that_are_gone_go_and_pages_of_the_book_stay(tmp_path):
    first, second = some("kd", "sastc")
    page = tmp_path / f"{runs.page_of(first.name)}.html"
    page.parent.mkdir(parents=True)
    page.write_text("a page")
    runs.write_runs(tmp_path, [first, second], pages={runs.page_of(first.name): "a run"})
    assert page.read_text() == "a page"
    assert f"run.html#{second.name}" in (tmp_path / f"{runs.page_of(second.name)}.html").read_text()
    runs.write_runs(tmp_path, [first], pages={runs.page_of(first.name): "a run"})
    assert [file.stem for file in (tmp_path / "_static/runs").iterdir()] == [first.name]


def test_a_file_holds_what_was_recorded():
    for run in some("sastc", "baseline", "teacher"):
        found, _ = packed(run)
        assert found["metrics"]["accuracy"] == pytest.approx(run.metrics["accuracy"], rel=1e-4)
        assert found["commit_url"] == f"{URL}/commit/{run.provenance['commit']}"
        assert found["data"] == run.provenance["data"]["name"]
        np.testing.assert_allclose(found["history"]["train_loss"], run.history.train_loss, rtol=1e-4)
        np.testing.assert_array_equal(found["confusion"], run.measures["confusion"])
        assert ("attention" in found["maps"]) == (run.config.method == "sastc")
        if found["maps"]:
            np.testing.assert_allclose(found["maps"]["cka"], run.measures["cka"][-1], rtol=1e-4)
        assert found["changed"] == sorted(run.config.changed)


def test_the_explicit_command_names_every_setting_and_makes_the_same_run():
    for run in some("sastc", "feature_kd", "kd", "baseline", "teacher"):
        words = shlex.split(runs.explicit(run))
        assert words[:4] == ["python", "-m", "sastc", "train"]
        assert {word.split("=")[0] for word in words[4:]} >= run.config.to_dict(relevant=True).keys()
        assert RunConfig.from_dict(parse_arguments(words[4:])).name == run.config.name


def test_a_run_of_many_epochs_and_classes_fits(tmp_path):
    (source,) = some("sastc")
    shutil.copytree(source.path, tmp_path / source.name)
    run = Run(tmp_path / source.name)
    head, first = (run.path / "history.csv").read_text().splitlines()[:2]
    lines = [first.replace("1,", f"{epoch},", 1) for epoch in range(1, 1001)]
    (run.path / "history.csv").write_text("\n".join([head, *lines]) + "\n")
    arrays = run.measures | {"class_names": np.array([f"class {c}" for c in range(1000)])}
    np.savez_compressed(run.path / "measures.npz", **arrays | {"confusion": np.zeros((1000, 1000), int)})
    seal(run.path)
    found, size = packed(run)
    assert size <= runs.LARGEST
    assert len(found["history"]["epoch"]) > 50
    assert "confusion" not in found
    assert found["maps"]


def test_numbers_that_are_none_are_none():
    assert runs._short({"a": [float("nan"), 1.0, 1 / 3, float("inf")]}) == {"a": [None, 1, 0.33333, None]}


@pytest.mark.parametrize("page", ["runs/table2", "index", "runs/combination/other"])
def test_links_to_runs_without_a_page_lead_to_the_viewer(page):
    own, recorded = "digits-a-kd-T2-s0-0123456789", "cifar10-b-kd-T2-s0-0123456789"
    app = SimpleNamespace(env=SimpleNamespace(found_docs={f"runs/combination/{own}"}))
    body = f'<a href="combination/{own}.html"></a><a href="combination/{recorded}.html">0</a>'
    body += '<a href="../teacher/t-teacher-s0-1.html">1</a><a href="table2.html">2</a>'
    context = {"body": body}
    runs.lead_to_viewer(app, page, "page.html", context, None)
    root = "../" * page.count("/")
    assert f'href="combination/{own}.html"' in context["body"]
    assert f'href="{root}run.html#{recorded}"' in context["body"]
    assert f'href="{root}run.html#t-teacher-s0-1"' in context["body"]
    assert 'href="table2.html"' in context["body"]


def test_the_table_marks_changes_links_commits_and_names_notebooks(tmp_path):
    (source,) = some("kd")
    shutil.copytree(source.path, tmp_path / source.name)
    run = Run(tmp_path / source.name)
    write_json(run.path / "provenance.json", run.provenance | {"dirty": True})
    seal(run.path)
    page = runs.table([run], [runs.page_of(run.name)], URL)
    assert "with changes" in page
    assert f'<a href="{URL}/commit/{run.provenance["commit"]}">{run.provenance["commit"][:10]}</a>' in page
    assert f'href="run.html#{run.name}"' in page
    assert f'<a href="{runs.page_of(run.name)}.html">notebook</a>' in page
    clean = runs.table([source], [], URL)
    assert "with changes" not in clean
    assert ">notebook<" not in clean
    unknown = runs.table([Run(run.path)], [], URL)
    assert "unknown" not in unknown
    write_json(run.path / "provenance.json", run.provenance | {"commit": None})
    seal(run.path)
    assert "/commit/" not in runs.table([run], [], URL)


def slim(**settings):
    """The recorded run of these settings."""
    return find_run(RunConfig(dataset="cifar10", scale="slim", **settings).name, SLIM)


def test_a_run_is_used_in_the_pages_that_list_it_and_a_teacher_where_its_students_are():
    pages = relations.used_in(PAGES)
    sastc, weak = slim(method="sastc"), slim(method="sastc", beta=1.0)
    assert pages[sastc.name] == ["runs/beta_slim", "runs/explorer"]
    assert pages[weak.name] == ["runs/beta_slim", "runs/explorer"]
    assert pages[slim(method="kd").name] == ["runs/beta_slim"], "the explorer shows attention"
    assert "runs/table2_slim" in pages[sastc.provenance["teacher"]["run"]]


def test_siblings_are_other_seeds_and_other_methods_of_the_cell():
    kin = relations.siblings(finished())
    sastc, weak, kd = slim(method="sastc"), slim(method="sastc", beta=1.0), slim(method="kd")
    seeds = [run for run in finished() if run.config.replace(seed=0) == sastc.config and run.name != sastc.name]
    assert kin[sastc.name]["seeds"] == [(str(run.config.seed), run.name) for run in seeds]
    assert len(seeds) >= 2
    methods = [("Baseline", slim(method="baseline")), ("Feature KD", slim(method="feature_kd")), ("KD", kd)]
    assert kin[sastc.name]["methods"] == [(words, run.name) for words, run in methods]
    assert ("KD", kd.name) in kin[weak.name]["methods"], "KD has no beta"
    assert [name for words, name in kin[kd.name]["methods"] if words == "SASTC"] == [sastc.name], (
        "not those with others"
    )
    noisy = slim(method="sastc", label_noise=0.5)
    assert ("KD", slim(method="kd", label_noise=0.5).name) in kin[noisy.name]["methods"]
    assert kd.name not in dict(map(reversed, kin[noisy.name]["methods"]))
    assert kin[sastc.provenance["teacher"]["run"]]["methods"] == []


def test_files_have_addresses_where_git_has_them(tmp_path):
    run = slim(method="sastc")
    folder = f"results/slim/{run.name}"
    files = frozenset(
        {f"{folder}/config.json", f"{folder}/metrics.json", f"{folder}x/config.json", "results/README.md"}
    )
    assert relations.addresses(run, files, URL, "trunk") == {
        "": f"{URL}/tree/trunk/{folder}",
        "config.json": f"{URL}/raw/trunk/{folder}/config.json",
        "metrics.json": f"{URL}/raw/trunk/{folder}/metrics.json",
    }
    assert relations.addresses(run, frozenset(), URL, "trunk") == {}
    assert relations.addresses(run, files, "", "trunk") == {}
    shutil.copytree(run.path, tmp_path / run.name)
    assert relations.addresses(Run(tmp_path / run.name), files, URL, "trunk") == {}
    if relations.tracked():
        assert f"{folder}/config.json" in relations.tracked()


def test_many_settings_are_folded_and_few_are_not():
    few, many = [f"s{i}=[1, 2]" for i in range(4)], [f"s{i}=<{i}>" for i in range(7)]
    assert runs.settings_cell([]) == ""
    assert runs.settings_cell(few) == ", ".join(few)
    cell = runs.settings_cell(many)
    assert 'data-more="… 4 more">s0=&lt;0&gt;, s1=&lt;1&gt;, s2=&lt;2&gt;, </summary>' in cell
    text = html.unescape(re.sub(r"<[^>]+>", "", cell))
    assert text == ", ".join(many), "as filters and downloads read it"


def test_the_viewer_has_no_page_before_or_after():
    app = SimpleNamespace(env=SimpleNamespace(found_docs=set()))
    for page, left in (("run", None), ("every_run", "x")):
        context = {"prev": "x", "next": "x", "body": ""}
        runs.lead_to_viewer(app, page, "page.html", context, None)
        assert context["prev"] == context["next"] == left


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The table and the viewer on bare pages, with the book's own style."""
    site = tmp_path_factory.mktemp("site")
    chosen = [*some("sastc", "kd", "baseline", "teacher"), *finished()[-2:]]
    chosen = list({run.name: run for run in chosen}.values())
    teacher = find_run(chosen[0].provenance["teacher"]["run"], SLIM)
    chosen += [teacher] if teacher.name not in {run.name for run in chosen} else []
    runs.write_runs(site, chosen, PAGES, URL, "trunk")
    for page in PAGES:
        (site / f"{page}.html").parent.mkdir(parents=True, exist_ok=True)
        (site / f"{page}.html").write_text(f"<!doctype html><title>{page}</title><link rel=icon href=data:,>")
    for name in ("_ext/all-runs.js", "_static/custom.css"):
        shutil.copy(ROOT / "book" / name, site / "_static")
    (site / "_static/run.js").write_text(runs.viewer())
    colours = ":root{--pst-color-text-base:#111;--pst-color-background:#fff;--pst-color-text-muted:#555}"
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head += f'<title>x</title><link rel="icon" href="data:,"><style>{colours}</style>'
    head += '<link rel="stylesheet" href="_static/custom.css">'
    source = (ROOT / "book/run.md").read_text().split("```{raw} html\n")[1].split("```")[0]
    (site / "run.html").write_text(f'{head}<main class="bd-article"><h1>One run</h1>{source}</main>')
    table = runs.table(chosen, [], URL)
    (site / "every_run.html").write_text(f'{head}<main class="bd-article"><h1>Every run</h1>{table}</main>')
    return SimpleNamespace(folder=site, runs=chosen)


@pytest.mark.browser
def test_the_viewer_shows_a_run_and_its_teacher(site, browser):
    run, faults = site.runs[0], []
    with served(site.folder) as base:
        page = closed_context(browser, (base,), faults).new_page()
        page.goto(f"{base}/runs/combination/{run.name}.html")  # the old address
        page.wait_for_selector(".run-viewer dl")
        assert page.url == f"{base}/run.html#{run.name}"
        text = page.locator(".run-viewer").inner_text()
        assert f"{run.metrics['last_accuracy']:.2f} %" in text
        first = page.locator(".run-viewer dl").first.inner_text()
        assert run.provenance["commit"][:10] in first
        seconds, epochs = (run.metrics[name] for name in ("train_seconds_per_epoch", "epochs"))
        assert f"{epochs} epochs of {seconds:.2f} s each" in first
        repeat = page.locator("h2", has_text="Repeat it").bounding_box()["y"]
        assert repeat < page.locator("pre.explicit").bounding_box()["y"] < page.locator(".curves").bounding_box()["y"]
        assert page.get_by_text(f"git checkout {run.provenance['commit']}", exact=True).count() == 1
        assert page.get_by_text(run.config.command, exact=True).count() == 1
        last = run.measures["accuracy_by_step"][-1]
        assert abs(last - run.metrics["last_accuracy"]) > 0.004
        assert f"t = {run.config.timesteps}: {last:.2f} %; counted on the mean" in first
        assert runs.explicit(run) in page.locator("pre.explicit").inner_text()
        assert page.locator(".curves svg").count() == 3
        attention = page.locator("table", has_text="Attention: weight").locator("tbody td").all_text_contents()
        shape = run.measures["attention"][-1].shape
        np.testing.assert_allclose(np.array(attention, float).reshape(shape), run.measures["attention"][-1], rtol=0.01)
        counted = page.locator("table", has_text="Operations and energy")
        assert "_" not in counted.locator("thead").inner_text()
        assert "energy (nJ)" in counted.locator("thead").inner_text()
        first = run.energy.energy_nj.iloc[0]
        assert counted.locator("tbody tr").first.locator("td").nth(6).inner_text() == f"{first:,.0f}"
        total = page.locator("table", has_text="Confusion").locator("tbody td").all_text_contents()
        assert sum(map(int, total)) == run.measures["confusion"].sum()
        assert page.locator(f'a[href="{URL}/commit/{run.provenance["commit"]}"]').count() == 1
        beside = page.locator("dl.links")
        assert beside.get_by_role("link", name="Table 2").get_attribute("href") == "runs/table2_slim.html"
        assert beside.get_by_role("link", name="Front").count() == 0
        folder = f"results/slim/{run.name}"
        assert page.get_by_role("link", name=folder).get_attribute("href") == f"{URL}/tree/trunk/{folder}"
        address = page.get_by_role("link", name="metrics.json").get_attribute("href")
        assert address == f"{URL}/raw/trunk/{folder}/metrics.json"
        data = page.get_by_role("link", name=f"{run.name}.js").get_attribute("href")
        assert (site.folder / data).is_file()
        boxes = [link.bounding_box() for link in beside.get_by_role("link").all()]
        assert min(min(box["width"], box["height"]) for box in boxes) >= 24
        table = page.locator("details", has_text="settings").locator("tbody tr")
        assert table.count() == len(run.config.to_dict(relevant=True))
        assert not table.first.is_visible()
        page.get_by_text(f"All {table.count()} settings").click()
        assert table.first.is_visible()
        with page.expect_download() as download:
            page.get_by_role("button", name="Download as JSON").click()
        assert json.loads(Path(download.value.path()).read_text())["name"] == run.name
        teacher = run.provenance["teacher"]["run"]
        page.get_by_role("link", name=teacher).click()
        page.wait_for_function(
            "name => document.title.includes('teacher') && location.hash === '#' + name", arg=teacher
        )
        assert page.locator("table", has_text="Attention: weight").count() == 0
        taught = [r for r in site.runs if (r.provenance.get("teacher") or {}).get("run") == teacher]
        page.get_by_role("link", name=f"{len(taught)} run").click()
        page.wait_for_selector(".all-runs .count")
        shown = page.locator("tbody tr:visible a[href^='run.html']").evaluate_all("all => all.map(a => a.title)")
        assert set(shown) == {teacher, *(r.name for r in taught)}
        page.goto(f"{base}/run.html?name={run.name}")
        page.wait_for_selector(".run-viewer dl")
        page.context.close()
    assert not faults


@pytest.mark.browser
def test_the_viewer_works_from_the_disk_and_says_what_it_does_not_have(site, browser):
    faults = []
    address = (site.folder / "run.html").as_uri()
    page = closed_context(browser, ("file:",), faults).new_page()
    page.goto(f"{address}#{site.runs[1].name}")
    page.wait_for_selector(".run-viewer dl")
    assert not faults
    for name, words in {"nosuch-run": "No run nosuch-run", "../../x": "no name of a run", "": "Choose a run"}.items():
        page.goto("about:blank")
        page.goto(f"{address}#{name}")
        page.wait_for_selector(f"text={words}")
        assert page.get_by_role("link", name="All runs").get_attribute("href") == "every_run.html"
    page.context.close()


@pytest.mark.browser
def test_the_table_filters_sorts_and_is_downloaded(site, browser):
    faults = []
    with served(site.folder) as base:
        page = closed_context(browser, (base,), faults, 1440).new_page()
        page.goto(f"{base}/every_run.html")
        rows = page.locator("tbody tr:visible")
        assert rows.count() == len(site.runs)
        page.get_by_role("button", name="accuracy (%)").click()
        shown = [float(row.locator("td").nth(6).inner_text()) for row in rows.all()]
        assert shown == sorted(float(f"{run.metrics['accuracy']:.2f}") for run in site.runs)
        assert page.locator("th[aria-sort=ascending]").inner_text().startswith("accuracy")
        page.get_by_label("method").select_option("SASTC")
        sastc = [run for run in site.runs if run.config.method == "sastc"]
        assert rows.count() == len(sastc) < len(site.runs)
        assert page.get_by_role("status").inner_text() == f"{len(sastc)} of {len(site.runs)} runs"
        with page.expect_download() as download:
            page.get_by_role("button", name="CSV").click()
        told = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
        assert {row["run"] for row in told} == {run.name for run in sastc}
        assert {float(row["accuracy (%)"]) for row in told} == {round(run.metrics["accuracy"], 2) for run in sastc}
        assert {row["commit"] for row in told} == {run.provenance["commit"] for run in sastc}
        assert {row["uncommitted_changes"] for row in told} == {str(bool(r.provenance["dirty"])).lower() for r in sastc}
        page.get_by_label("method").select_option("")
        setting, value = next(item for run in site.runs for item in run.config.changed.items())
        page.get_by_label("settings").select_option(f"{setting}={runs.shown(value)}")
        assert rows.count() == sum(run.config.changed.get(setting) == value for run in site.runs)
        page.get_by_label("settings").select_option("as preset")
        assert rows.count() == sum(not run.config.changed for run in site.runs)
        page.get_by_label("settings").select_option("")
        page.get_by_label("any words").fill(site.runs[1].name[-10:])
        assert rows.count() == 1
        with page.expect_download() as download:
            page.get_by_role("button", name="JSON").click()
        (row,) = json.loads(Path(download.value.path()).read_text())
        assert row["run"] == site.runs[1].name
        assert row["seed"] == site.runs[1].config.seed
        page.locator("tbody tr:visible a[href^='run.html']").click()
        page.wait_for_selector(".run-viewer dl")
        page.context.close()
    assert not faults


@pytest.mark.browser
@ENGINES
def test_table_and_viewer_work_in_other_engines_too(engine, site, tmp_path):
    run = site.runs[0]
    with served(site.folder) as base, engine(tmp_path) as page:
        page.goto(f"{base}/every_run.html?find={run.name[-10:]}")
        visible = "return [...document.querySelectorAll('tbody tr')].filter(row => !row.hidden).length"
        assert page.run(visible) == 1
        address = page.run("return document.querySelector('tbody tr:not([hidden]) a').href")
        assert address == f"{base}/run.html#{run.name}"
        page.goto(address)  # a click would leave while its script runs
        page.wait("return document.querySelectorAll('.curves svg').length === 3")
        assert runs.explicit(run) in page.run("return document.querySelector('pre.explicit').textContent")
        assert page.run("return document.querySelectorAll('dl.links a').length") >= 2
        assert page.faults == []


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1440])
def test_table_and_viewer_are_accessible_and_fit(site, browser, width):
    faults, found = [], {}
    with served(site.folder) as base:
        page = closed_context(browser, (base,), faults, width).new_page()
        for name in ("every_run.html", f"run.html#{site.runs[0].name}"):
            page.goto(f"{base}/{name}", wait_until="load")
            page.wait_for_selector("table tbody tr")
            found[name] = violations(page, "moderate", "serious", "critical")
            assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0, name
        page.context.close()
    assert not {name: problems for name, problems in found.items() if problems}
    assert not faults


def test_ten_times_as_many_recorded_runs_add_no_job_and_little_to_the_site(tmp_path, monkeypatch):
    """Copies of recorded runs under other names."""
    monkeypatch.syspath_prepend(ROOT / "workflow")
    import plan

    few = finished()[:3]
    for run in few:
        os.makedirs(tmp_path / "slim", exist_ok=True)
        (tmp_path / "slim" / run.name).symlink_to(run.path)
    before = plan.make_plan("quick", {}, (), str(tmp_path), "data")
    for copy in range(9):
        for run in few:
            shutil.copytree(run.path, tmp_path / "slim" / f"{run.name[:-10]}{copy:010}")
    after = plan.make_plan("quick", {}, (), str(tmp_path), "data")
    assert list(after) == list(before)
    assert not [job.name for job in after.values() if job.config is not None and job.config.scale != "quick"]
    copies = [run for run in list_runs(tmp_path) if run.name not in {run.name for run in few}]
    assert len(copies) == 27
    sizes = [len(runs.script(run).encode()) + len(runs.table([run])) + 1000 for run in copies]
    assert max(sizes) <= 50_000 + 2500
