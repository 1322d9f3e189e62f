"""papermill, the workflow, the book and a browser, all for real, in a copy of the project with small experiments."""

import html
import json
import os
import re
import shutil
import signal
import time
from urllib.parse import unquote

import nbformat
import numpy as np
import pytest
import yaml
from browsing import closed_context, served, violations
from project import Project

from sastc.experiments import load_experiment
from sastc.records import find_run, list_runs

pytestmark = pytest.mark.workflow
METHODS = ["baseline", "kd", "feature_kd", "sastc"]
# What every experiment runs here; the others run each method once, which is a part of Table 2's.
SMALL = {
    "table2": [{"method": METHODS, "seed": [0, 1]}],
    "table6": [
        {"dataset": "digits_dvs", "student": "vggsnn", "method": ["baseline", "sastc"], "timesteps": 3},
        # the teacher of those students, as in the experiment
        {"dataset": "digits_dvs", "student": "", "method": "teacher", "timesteps": 3, "epochs": 1, "batch_size": 32},
    ],
    "table7": [{"method": METHODS}, {"method": "kd", "label_noise": 0.5}],
    "attention": [{"method": "sastc", "seed": [0, 1]}],
    "batchsize": [{"method": ["baseline", "kd", "sastc"]}, {"method": "kd", "batch_size": 20}],
    "beta": [{"method": ["baseline", "kd"]}, {"method": "sastc", "beta": [1.0, 5.0]}],
    "choices": [{"method": "sastc", "seed": [0, 1]}, {"method": "sastc", "detach_sim": True}],
    "controls": [{"method": "sastc", "attention": ["learned", "uniform"], "seed": [0, 1]}],
    "fewshot": [{"method": METHODS}, {"method": "kd", "train_fraction": 0.5}],
    "figure2": [
        {"method": ["kd", "sastc"], "taps": "stem_and_stages"},
        {"method": "feature_kd", "feature_pairs": "1-1", "taps": "stem_and_stages"},
    ],
    "fisher": [{"method": "kd", "fisher_samples": 4}],
    "precision": [{"method": "kd", "precision": ["fp32", "bf16"]}],
}


@pytest.fixture(scope="session")
def project(tmp_path_factory, request):
    project = Project(request.config.rootpath, tmp_path_factory.mktemp("project"))
    for path in (project.root / "experiments").glob("*.yaml"):
        if "quick" in yaml.safe_load(path.read_text()):
            project.experiment(path.stem, *SMALL.get(path.stem, [{"method": METHODS}]))
    measured = request.config.rootpath / "results" / "benchmarks"
    if measured.is_dir():
        shutil.copytree(measured, project.root / "results" / "benchmarks")
    for scale in ("slim", "quarter"):
        for run in list_runs(request.config.rootpath / "results" / scale):  # of record: one seed is enough
            config, few = run.config, ("kd", "teacher")  # and of the large sweeps a part
            whole = not config.validation and config.gamma == 1 and config.variant == "paper"
            if run.complete and config.seed == 0 and (whole or config.method in few):
                folder = project.root / "results" / scale / run.name
                shutil.copytree(run.path, folder, ignore=shutil.ignore_patterns("*.pt", ".*"))
    return project


def runs_of(project, name="table2"):
    """The runs of an experiment."""
    experiment = load_experiment(project.root / "experiments" / f"{name}.yaml")
    return [find_run(config.name, project.root / "results" / "quick") for config in experiment.runs]


@pytest.fixture(scope="session")
def site(project):
    """The book, built by the workflow after its launcher was killed with everything it had started left alone."""
    process = project.start("workflow/launch.py")
    deadline = time.monotonic() + 120
    while len(list((project.root / "results/quick").rglob("metrics.json"))) < 2:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    code, output = project.run("workflow/launch.py")
    assert code == 0, output
    assert "processes that an interrupted run had left" in output
    assert "The book is ready" in output
    return project.root / "results/site/_build/html"


def test_recovered_workflow_made_everything_once(project, site):
    notebooks = project.root / "results/notebooks"
    made = {p.stem for p in notebooks.rglob("*.ipynb") if "own" not in p.parts}
    assert made == set(project.plan)
    assert {"table2", "table2_slim", "forensics"} < made
    assert not list((notebooks / "failed").glob("*.ipynb"))
    runs = list_runs(project.root / "results")
    assert {run.name for run in runs if run.config.scale == "quick"} < made
    assert not {run.name for run in runs if run.config.scale != "quick"} & made
    assert all(run.complete for run in runs)
    for path in notebooks.rglob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        assert not any(o.output_type == "error" for c in cells for o in c.get("outputs", []))


def test_nothing_changed_nothing_done(project, site):
    before = {p: p.stat().st_mtime_ns for p in (project.root / "results/notebooks").rglob("*.ipynb")}
    code, output = project.run("workflow/launch.py")
    assert code == 0, output
    log = (project.root / "results/.workflow/snakemake.log").read_text()
    assert "Nothing to be done" in log
    assert "Finished jobid" not in log
    assert {p: p.stat().st_mtime_ns for p in (project.root / "results/notebooks").rglob("*.ipynb")} == before


def test_lost_run_is_made_again(project, site):
    run = next(run for run in runs_of(project) if run.config.method == "kd")
    accuracy = run.metrics["accuracy"]
    shutil.rmtree(run.path)
    code, output = project.run("workflow/launch.py", "--target", f"combination/{run.name}")  # not the pages with it
    assert code == 0, output
    assert run.metrics["accuracy"] == accuracy


def test_pages_of_a_record_that_changes_are_drawn_again(project, site):
    run = next(run for run in list_runs(project.root / "results" / "slim") if run.config.method == "kd")
    command = ("workflow/launch.py", "--no-book", "--dry-run")
    page = "table2_slim"
    metrics = run.path / "metrics.json"
    before, content = metrics.stat().st_mtime, metrics.read_text()
    metrics.write_text(content + "\n")  # its content counts, not its time alone
    code, output = project.run(*command)
    metrics.write_text(content)
    os.utime(metrics, (before, before))
    assert code == 0, output
    assert page in output  # and not without a change: test_nothing_changed_nothing_done


def test_failed_notebook_is_kept_and_the_others_go_on(project, site):
    project.experiment("failing", {"method": "baseline", "teacher": "", "batch_size": 2000})
    project.experiment("diverging", {"method": "sastc", "learning_rate": [1e30, 0.02]})
    try:
        code, output = project.run("workflow/launch.py", "--only", "failing", "diverging", "--no-book")
        again = re.search(r"run just this again: make book ARGS='(.+)'", output)
        code_again, output_again = project.run("workflow/launch.py", *again[1].split())
    finally:
        for name in ("failing", "diverging"):
            (project.root / f"experiments/{name}.yaml").unlink()
    page = (project.root / "results/notebooks/diverging.ipynb").read_text()
    assert "1 recorded, 1 diverged, 0 not run" in page, "that a run diverged is its result, and no failure"
    assert code == code_again == 1
    assert "1 notebooks failed" in output
    assert "1 notebooks failed" in output_again, "the printed command makes that notebook and nothing else"
    (failed,) = (project.root / "results/notebooks/failed").glob("*.ipynb")
    assert failed.name in output
    assert "batch_size=2000 of" in output
    assert f"--target combination/{failed.stem}" in output
    errors = [
        o for c in nbformat.read(failed, as_version=4).cells for o in c.get("outputs", []) if o.output_type == "error"
    ]
    assert errors[0].traceback
    assert sum(r.config.learning_rate == 0.02 and r.complete for r in list_runs(project.root / "results/quick")) == 1
    (project.root / "results/notebooks/diverging.ipynb").unlink()  # for the tests that come after
    for run in list_runs(project.root / "results/quick"):
        if run.config.learning_rate in (1e30, 0.02):
            (project.root / f"results/notebooks/combination/{run.name}.ipynb").unlink()


def test_pages_show_the_recorded_numbers(project, site):
    table = (site / "runs/table2.html").read_text()
    means = {}
    for run in runs_of(project):
        assert f'href="combination/{run.name}.html"' in table
        page = (site / f"runs/combination/{run.name}.html").read_text()
        assert f"{run.metrics['last_accuracy']:.2f} %" in page
        assert run.config.command in page.replace("&quot;", '"')
        means.setdefault(run.config.method, []).append(run.metrics["accuracy"])
    for method in METHODS:
        mean = sum(means[method]) / 2
        assert f'<span class="ours">{mean:.2f} ±' in table, method
    assert "93.55" in table, "the paper's value for VGG-11 & ResNet-19, SASTC, T=2"
    assert "digits are not CIFAR-10" in table


def pages_of(site):
    """All pages but copies of the source; the theme leaves a template among its static files."""
    return [p for p in site.rglob("*.html") if not {"_static", "_modules"} & set(p.relative_to(site).parts)]


def test_no_page_shows_a_number_that_is_none(site):
    for page in (site / "runs").rglob("*.html"):
        assert not re.search(r"± ?nan|>nan<", page.read_text(encoding="utf-8")), page.name


def test_internal_links_lead_somewhere(site):
    """Files are there, and anchors are on their pages."""
    texts = {page: page.read_text() for page in pages_of(site)}
    anchors = {page: set(re.findall(r'\b(?:id|name)="([^"]+)"', text)) for page, text in texts.items()}
    missing = set()
    for page, text in texts.items():
        for target in re.findall(r'\b(?:href|src)="([^"]+)"', text):
            if re.match(r"[a-z]+:|//", target):
                continue
            path, _, anchor = html.unescape(target).partition("#")
            leads_to = (page.parent / path.split("?")[0]).resolve() if path else page
            if (
                leads_to.name == "run.html" and anchor and anchor not in anchors[leads_to]
            ):  # the viewer has no anchors: a run's name stands there
                leads_to, anchor = leads_to.parent / "_static" / "runs" / f"{anchor}.js", ""
            known = anchors.get(leads_to, {anchor}) | {"", "top"}
            if not leads_to.exists() or (unquote(anchor) not in known and not anchor.startswith("explorer?")):
                missing.add((page.name, target))
    assert not missing


@pytest.mark.browser
def test_pages_ask_no_other_host_fit_and_describe_their_pictures(site, browser):
    """Each is loaded once, light on a phone, and then widened to a dark screen."""
    stub = 'http-equiv="refresh"'  # leads on to the viewer at once
    pages = [p.relative_to(site).as_posix() for p in pages_of(site) if stub not in p.read_text()]
    assert len(pages) > 20
    faults, wide = [], "document.documentElement.scrollWidth - window.innerWidth"
    with served(site) as base:
        page = closed_context(browser, (base,), faults).new_page()
        for name in pages:
            for width, theme in ((360, "light"), (1440, "dark")):
                page.set_viewport_size(dict(width=width, height=900))
                page.emulate_media(color_scheme=theme)
                if theme == "light":
                    page.goto(f"{base}/{name}", wait_until="load")
                more = page.evaluate(wide)
                assert more <= 0 or name == "genindex.html", f"{name} is {more} px too wide at {width} px"
                assert not faults, (name, faults)
            described = page.eval_on_selector_all(
                "article :is(img, [role=img])", "all => all.map(i => i.alt ?? i.ariaLabel)"
            )
            assert all(alt and not re.search(r"\.(svg|png)$", alt) for alt in described), (name, described)
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            page.goto(f"{base}/runs/table2.html")
            assert page.locator("html").get_attribute("data-theme") == theme
        assert page.locator("table.results tbody tr").count() >= 1
        assert page.locator("svg, img").count() >= 2
        page.goto(f"{base}/method.html")
        page.wait_for_selector("mjx-container", timeout=20_000)
        page.context.close()
    assert not faults


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1440])
def test_the_front_page_answers_first_on_every_width(site, browser, width):
    faults = []
    with served(site) as base:
        page = closed_context(browser, (base,), faults, width).new_page()
        page.goto(f"{base}/index.html")
        places = [page.locator(name).first.bounding_box()["y"] for name in (".lead-answer", ".claims", ".front-cards")]
        assert places == sorted(places)
        assert places[0] < 200
        rows = page.locator(".claim")
        assert rows.count() == 5
        for row in rows.all():
            assert row.locator(".verdict").is_visible()
            assert row.locator("svg[role=img]").get_attribute("aria-label")
            assert row.locator(".said a").get_attribute("href").startswith("runs/")
        page.goto(f"{base}/runs/verdicts.html")
        page.wait_for_url("**/verdicts_slim.html")
        page.goto(f"{base}/runs/table2.html")
        page.locator(".edition-tabs a", has_text="CIFAR-10, small-scale runs").click()
        page.wait_for_url("**/runs/table2_slim.html")
        assert page.get_by_role("tab", selected=True).inner_text().startswith("CIFAR-10")
        answer, code = page.locator(".headline").first, page.locator("details.above-input").first
        assert answer.bounding_box()["y"] < code.bounding_box()["y"]
        assert page.locator("details.above-input").count() > 3
        link = page.locator("a[data-editions]", has_text="noisy labels").first
        assert link.get_attribute("href").endswith("table7_slim.html")
        page.goto(f"{base}/runs/table2.html")
        page.locator(".edition-tabs a", has_text="Digits").click()
        page.reload()
        assert link.get_attribute("href").endswith("table7.html"), "the choice holds for other pages"
        page.context.close()
    assert not faults


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_kind_of_page_is_accessible(project, site, browser, theme):
    run = next(run for run in runs_of(project) if run.config.method == "sastc")
    kinds = [
        "index",
        "method",
        "config",
        "api",
        "api/neurons",
        "runs/table2",
        "runs/explorer",
        f"runs/combination/{run.name}",
        "every_run",
        "run",
    ]
    faults, found = [], {}
    with served(site) as base:
        page = closed_context(browser, (base,), faults, 1440, color_scheme=theme).new_page()
        for name in kinds:
            page.goto(f"{base}/{name}.html", wait_until="load")
            only = None if theme == "light" else "color-contrast"
            found[name] = violations(page, "serious", "critical", only=only)
        page.context.close()
    assert not {name: problems for name, problems in found.items() if problems}
    assert not faults


@pytest.mark.browser
def test_the_explorer_in_the_book_shows_the_recorded_weights(project, site, browser):
    """By link and by keyboard, with the runs of record beside the quick ones, on a light page."""
    run = runs_of(project, "attention")[1]
    attention = run.measures["attention"]  # (E, T, S, A)
    faults = []
    with served(site) as base:
        page = closed_context(browser, (base,), faults).new_page()

        def drawn():
            texts = page.locator(".cell .value").all_text_contents()
            return np.array(texts, float).reshape(attention.shape[2:])

        page.goto(f"{base}/runs/explorer.html")
        assert "small scale" in page.locator(".panel h3").inner_text()
        weight = "performance.getEntries().reduce((sum, e) => sum + (e.encodedBodySize ?? 0), 0)"
        assert 200_000 < page.evaluate(weight) < 3_000_000
        page.get_by_label("Dataset").select_option(digits := f"{run.provenance['data']['name']}, smoke test")
        assert digits in page.locator(".panel h3").inner_text()
        page.evaluate(f"location.hash = '#explorer?run={run.name}'")
        page.get_by_role("radio", name="1", exact=True).check(force=True)
        np.testing.assert_allclose(drawn(), attention[-1, 0], atol=0.00502)
        page.locator("#epoch").focus()
        page.keyboard.press("ArrowLeft")
        np.testing.assert_allclose(drawn(), attention[-2, 0], atol=0.00502)
        link = page.url
        page.goto("about:blank")
        page.goto(link)
        np.testing.assert_allclose(drawn(), attention[-2, 0], atol=0.00502)
        assert run.name in page.url
        page.context.close()
    assert not faults


def test_source_notebooks_hold_no_outputs(request):
    for path in (request.config.rootpath / "notebooks").glob("*.ipynb"):
        notebook = json.loads(path.read_text())
        code = [c for c in notebook["cells"] if c["cell_type"] == "code"]
        assert all(not c["outputs"] and c["execution_count"] is None for c in code), path.name
        assert sum("parameters" in c["metadata"].get("tags", []) for c in code) == 1, path.name
