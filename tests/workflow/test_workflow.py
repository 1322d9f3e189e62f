"""papermill, the workflow, the book and a browser, all for real, in a copy of the project with small experiments."""

import contextlib
import html
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path
from urllib.parse import unquote

import nbformat
import numpy as np
import psutil
import pytest
import yaml
from browsing import closed_context, served, violations
from project import Project
from recordings import recordings_for_training
from tiny import TINY, TINY_SETTINGS

from sastc.experiments import load_experiment
from sastc.records import find_run, list_runs

pytestmark = pytest.mark.workflow
METHODS = ["baseline", "kd", "feature_kd", "sastc"]
# What every experiment runs here; the others run each method once, which is a part of Table 2's.
SMALL = {
    "table2": [{"method": METHODS, "seed": [0, 1]}],
    "table6": [
        {"dataset": "digits_dvs", "student": "vggsnn", "method": ["baseline", "sastc"], "timesteps": 3},
        {"dataset": "digits_dvs", "student": "", "method": "teacher", "timesteps": 3},
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
    for run in list_runs(request.config.rootpath / "results" / "slim"):  # of record: one seed is enough
        config, few = run.config, ("kd", "teacher")  # and of the large sweeps a part
        whole = not config.validation and config.gamma == 1 and config.variant == "paper"
        if config.seed == 0 and (whole or config.method in few):
            folder = project.root / "results" / "slim" / run.name
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


@pytest.mark.parametrize(
    ("notebook", "name", "value", "words"),
    [
        ("combination", "timestep", "3", "unknown parameter 'timestep': did you mean timesteps"),
        ("teacher", "method", "kd", "method='kd': this notebook trains a teacher"),
        ("combination", "T", "4", "unknown parameter 'T'"),
        ("cost", "report", "x", "unknown parameter 'report'"),
    ],
)
def test_papermill_itself_stops_at_a_wrong_parameter(project, tmp_path, notebook, name, value, words):
    base = [
        "-m",
        "papermill",
        f"notebooks/{notebook}.ipynb",
        str(tmp_path / "out.ipynb"),
        "-k",
        "python3",
        "--cwd",
        ".",
    ]
    code, output = project.run(*base, "-p", name, value)
    assert code != 0
    assert words in output
    assert not list((project.root / "results").rglob("*timestep*"))


def test_papermill_itself_takes_every_field(project, tmp_path):
    settings = [word for s in TINY_SETTINGS for word in ("-p", *s.split("="))]
    base = [
        "-m",
        "papermill",
        "notebooks/combination.ipynb",
        str(tmp_path / "out.ipynb"),
        "-k",
        "python3",
        "--cwd",
        ".",
    ]
    code, output = project.run(*base, *settings, "-p", "method", "kd", "-p", "results", str(tmp_path / "results"))
    assert code == 0, output
    (run,) = [r for r in list_runs(tmp_path / "results") if r.config.method == "kd"]
    assert run.complete
    assert run.config.epochs == TINY["epochs"]


@pytest.mark.parametrize("by", ["papermill", "execute.py"])
def test_folders_are_relative_to_where_the_user_stands(project, tmp_path, by):
    """And the notebook's own to the checkout, wherever it is executed."""
    settings = ["epochs=1", "batch_size=16", "train_subset=80", "width=0.0625", "teacher=wrn16_2", "results=mine"]
    words = ["workflow/execute.py", "teacher", *settings]
    if by == "papermill":
        words = ["-m", "papermill", "notebooks/teacher.ipynb", "out.ipynb", "-k", "python3"]
        words += [word for setting in settings for word in ("-p", *setting.split("="))]
    words = [str(project.root / word) if word.startswith(("workflow/", "notebooks/")) else word for word in words]
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=project.environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [run.complete for run in list_runs(tmp_path / "mine")] == [True]
    assert not (project.root / "mine").exists()
    assert not (tmp_path / "results").exists()


def test_a_notebook_runs_in_a_checkout_of_any_name(project, tmp_path):
    root = tmp_path / 'a {b} it\'s {0} "ü" $HOME %s'
    root.mkdir()
    code, output = Project(project.root, root).run("workflow/execute.py", "benchmarks")
    assert code == 0, output
    assert (root / "results/notebooks/own/benchmarks.ipynb").exists()


def test_braces_in_the_folder_of_runs_are_no_wildcards(project):
    code, output = project.run("workflow/launch.py", "--only", "attention", "--dry-run", "--results", "{runs} of $HOME")
    assert code == 0, output
    assert "attention" in output


@pytest.mark.parametrize("name", ["{0}", "a{b", "}"])
def test_braces_in_the_name_of_the_checkout(name, tmp_path, request):
    (tmp_path / name).mkdir()
    project = Project(request.config.rootpath, tmp_path / name)
    project.experiment("attention", {"method": "sastc"})
    code, output = project.run("workflow/launch.py", "--only", "attention", "--no-book")
    assert code == 0, output + (project.root / "results/.workflow/snakemake.log").read_text()
    assert (project.root / "results/notebooks/attention.ipynb").exists()
    assert [run.complete for run in list_runs(project.root / "results")] == [True, True]
    code, output = project.run("workflow/launch.py", "--only", "attention", "--no-book", "--dry-run")
    assert "Nothing to be done" in output, output
    code, output = project.run("workflow/launch.py", "--only", "attention", "--profile", "slurm")
    assert code == 2
    assert "a cluster takes no checkout with braces in its path" in output


OWN = """from sastc.methods.kd import KD
from sastc import option


class Louder(KD):
    \"\"\"``L = s KD``\"\"\"

    factor: float = option(2.0, "factor s", low=0)

    def losses(self, batch):
        parts = super().losses(batch)
        return parts | {"loss": self.factor * parts["loss"]}
"""


def test_one_command_puts_a_method_of_ones_own_beside_the_others(tmp_path, request):
    (tmp_path / "checkout").mkdir()
    (tmp_path / "mine.py").write_text(OWN)
    project = Project(request.config.rootpath, tmp_path / "checkout")
    project.experiment("bench", {"method": ["kd", "twd"]})
    words = f"method={tmp_path}/mine.py:Louder", "factor=1.5", "--only", "bench", "--no-book"
    code, output = project.run("workflow/launch.py", *words)
    assert code == 0, output + (project.root / "results/.workflow/snakemake.log").read_text()
    runs = {run.config.method: run for run in list_runs(project.root / "results")}
    assert set(runs) == {"teacher", "kd", "twd", "louder"}
    assert runs["louder"].config.factor == 1.5
    page = (project.root / "results/notebooks/bench.ipynb").read_text()
    assert "#method-louder" in page
    assert "3 of 3 methods were trained on Digits" in page
    assert "mine.py, lines 5 to 12" in page
    code, output = project.run("workflow/launch.py", *words, "--dry-run")
    assert "Nothing to be done" in output, output


def test_the_launcher_knows_a_home_folder(project, tmp_path, monkeypatch):
    monkeypatch.setitem(project.environment, "HOME", str(tmp_path))
    words = "--only", "attention", "--dry-run", "--results", "~/runs", "--data=~/images"
    code, output = project.run("workflow/launch.py", *words)
    assert code == 0, output
    settings = json.loads((project.root / "results/.workflow/settings.json").read_text())
    assert (settings["results"], settings["data"]) == (f"{tmp_path}/runs", f"{tmp_path}/images")
    assert not (project.root / "~").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["combination", "timestep=3"], "unknown parameter 'timestep': did you mean timesteps?"),
        (["combination", "timesteps"], "'timesteps': must be key=value"),
        (["combination", "method=sastk"], "method='sastk': must be one of"),
        (["combination", "--parameters", '{"data": 5}'], "data=5: must be text, as 'data' is"),
        (["teacher", "--parameters", '{"beta2": 1}'], "unknown parameter 'beta2'"),
        (["table2", "--parameters", "[1, 2]"], "--parameters='[1, 2]': must be a JSON object"),
        (
            ["table2", "--parameters", "{scale: slim}"],
            "--parameters='{scale: slim}': must be a JSON object, and is no J",
        ),
        (["table2", "--parameters", 10_000 * '{"changes":'], "must not be nested deeper than 10 levels"),
        (
            ["table2", "--parameters", f'{{"changes": {{"beta": {300 * "["}{300 * "]"}}}}}'],
            "changes={'beta': [[[[...]]]]}: must not be nested deeper than 10 levels",
        ),
        (["table2", f"changes={300 * '['}{300 * ']'}"], "must not be nested deeper than 10 levels"),
        (["combination", "device=foo"], "device='foo': must be auto, cpu, cuda or cuda:N"),
        (["teacher", "method=kd"], "method='kd': this notebook trains a teacher"),
        (["table2", "--parameters", '{"scal": 1}'], "unknown parameter 'scal': did you mean scale?"),
        (["table2", "chanegs=3"], "unknown parameter 'chanegs': did you mean changes?"),
        (
            ["table2", "epochs=3"],
            "unknown parameter 'epochs': must be one of changes, data, experiment, results, scale",
        ),
        (
            ["table2", "changes={epochss: 3}"],
            "table2.yaml: quick, entry 1: unknown field 'epochss': did you mean epochs?",
        ),
        (["table2", "changes=3"], "changes=3: must be {setting: value, ...}, as {} is"),
        (["table2", "scale=huge"], "unknown scale 'huge'"),
        (["table2", "experiment=tabel2"], "unknown experiment 'tabel2': did you mean table2"),
        (["table3", "scale=slim"], "scale='slim': experiments/table3.yaml lists no runs at this scale"),
        (["sam", "image=abc"], "image='abc': must be an integer, as -1 is"),
        (["cost", "share=true"], "share=True: must be a number, as 0.4 is"),
        (["tabel2"], "unknown notebook 'tabel2': did you mean table2"),
    ],
)
def test_parameters_are_checked_before_anything_runs(project, arguments, words):
    code, output = project.run("workflow/execute.py", *arguments)
    assert code == 2
    assert words in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "table2", "epochss=1"], "unknown field 'epochss': did you mean epochs?"),
        (["--only", "table2", "epochs=-1"], "epochs=-1: must be an integer >= 1"),
        (["--only", "epochs=1"], "--only: expected a name before epochs=1"),
        (["--only", "atention"], "unknown experiment 'atention': did you mean attention?"),
        (["--target", "table2", "tabel3"], "unknown target 'tabel3': did you mean table3"),
        (["--target", "x"], "unknown target 'x': they are named as below results/notebooks"),
        (["--scale", "slim", "--only", "table3"], "table3 has no runs at scale slim"),
        (["--scale", "huge"], "--scale: invalid choice: 'huge'"),
        (["--cores", "0"], "--cores: 0: must be at least 1"),
        (["--gpus", "-1"], "--gpus: -1: must be at least 0"),
    ],
)
def test_the_launcher_checks_its_words_before_anything_runs(project, arguments, words):
    code, output = project.run("workflow/launch.py", *arguments)
    assert code == 2
    assert words in output
    assert "Traceback" not in output


def test_settings_may_stand_anywhere_on_the_launchers_command_line(project):
    changes = dict(batch_size=8, epochs=3, timesteps=4)
    batch_size, epochs, timesteps = (f"{name}={value}" for name, value in changes.items())
    command = [batch_size, "--only", "attention", epochs, "--dry-run", timesteps]
    code, output = project.run("workflow/launch.py", *command)
    assert code == 0, output
    experiment = load_experiment(project.root / "experiments/attention.yaml", "quick", changes)
    assert all(config.name in output for config in experiment.runs)
    assert "attention" in output


def test_an_experiment_without_its_notebook_is_named(project):
    path = project.root / "experiments/own.yaml"
    path.write_text("title: x\nnotebook: nosuch\n")
    try:
        code, output = project.run("workflow/launch.py", "--only", "own")
    finally:
        path.unlink()
    assert code == 2
    assert "experiments/own.yaml: notebook='nosuch': is not below notebooks/" in output


def test_sigterm_stops_all_that_the_launcher_has_started(project, tmp_path):
    def started():
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("SASTC_WORKFLOW") == str(project.root):
                    found.append(" ".join(process.cmdline()))
        return found

    process = project.start("workflow/launch.py", "--only", "attention", "--no-book", "--results", str(tmp_path))
    deadline = time.monotonic() + 120
    while not all(any(word in command for command in started()) for word in ("engine.py", "--serve")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from here" in output
    assert not started()


def test_one_notebook_by_hand_shows_progress_and_where_it_is(project):
    source, output = project.root / "notebooks/own.ipynb", project.root / "own.ipynb"
    cells = [nbformat.v4.new_code_cell("count = 1.5\nlayer = ''\nwhere = max('ab')", metadata={"tags": ["parameters"]})]
    cells.append(nbformat.v4.new_code_cell("print(count, repr(layer), where)"))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), source)
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 80))
    command = [sys.executable, "workflow/execute.py", "own", "count=2", "--output", str(output), "layer=4", "where=c"]
    try:
        subprocess.run(command, cwd=project.root, env=project.environment, stderr=end, stdout=end, check=True)
        shown = os.read(terminal, 100_000).decode()
        printed = nbformat.read(output, as_version=4).cells[-1].outputs[0].text
    finally:
        source.unlink()
        output.unlink(missing_ok=True)
    assert printed == "2 '4' c\n"
    assert "Executing: 100%" in shown
    assert str(output) in shown
    assert "WARNING" not in shown


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
    code, output = project.run("workflow/launch.py", "--no-book")
    assert code == 0, output
    assert run.metrics["accuracy"] == accuracy


def test_pages_of_a_record_that_changes_are_drawn_again(project, site):
    run = next(run for run in list_runs(project.root / "results" / "slim") if run.config.method == "kd")
    command = ("workflow/launch.py", "--no-book", "--dry-run")
    page = "table2_slim"
    assert page not in project.run(*command)[1]
    metrics = run.path / "metrics.json"
    before, content = metrics.stat().st_mtime, metrics.read_text()
    metrics.write_text(content + "\n")  # its content counts, not its time alone
    code, output = project.run(*command)
    metrics.write_text(content)
    os.utime(metrics, (before, before))
    assert code == 0, output
    assert page in output
    assert page not in project.run(*command)[1]


def test_failed_notebook_is_kept_and_the_others_go_on(project, site):
    project.experiment("failing", {"method": "baseline", "teacher": "", "learning_rate": [1e30, 0.02]})
    try:
        code, output = project.run("workflow/launch.py", "--only", "failing", "--no-book")
        again = re.search(r"run just this again: make book ARGS='(.+)'", output)
        code_again, output_again = project.run("workflow/launch.py", *again[1].split())
    finally:
        (project.root / "experiments/failing.yaml").unlink()
    assert code == code_again == 1
    assert "1 notebooks failed" in output
    assert "1 notebooks failed" in output_again, "the printed command makes that notebook and nothing else"
    (failed,) = (project.root / "results/notebooks/failed").glob("*.ipynb")
    assert failed.name in output
    assert "the loss is not finite in epoch" in output
    assert f"--target combination/{failed.stem}" in output
    errors = [
        o for c in nbformat.read(failed, as_version=4).cells for o in c.get("outputs", []) if o.output_type == "error"
    ]
    assert errors[0].traceback
    assert sum(r.config.learning_rate == 0.02 and r.complete for r in list_runs(project.root / "results/quick")) == 1
    for path in (project.root / "results/notebooks/combination").glob("*vgg11-baseline*"):
        path.unlink()


def test_recordings_on_the_disk_to_table_6_by_its_command(project, tmp_path):
    """The printed command, with settings that make it small, on a few made-up recordings in the published formats."""
    data, results = recordings_for_training(tmp_path / "data"), tmp_path / "results"
    command = load_experiment(project.root / "experiments/table6.yaml", "paper").command.split()[1:]
    command += ["--data", str(data), "--results", str(results), "--no-book"]
    code, output = project.run(*command, "--dry-run")
    assert code == 0, output
    assert re.search(r"total +36\b", output), "30 students, 4 teachers, the page, and what waits for all"
    small = dict(method="sastc", teacher_input="mean_frame", seed=0, timesteps=2, width=1 / 32, epochs=1)
    small |= dict(teacher_epochs=1)
    settings = [f"{name}={value}" for name, value in small.items()]
    code, output = project.run(*command, *settings, "--cores", "4")
    assert code == 0, output
    assert {run.config.dataset for run in list_runs(results)} == {"dvs_gesture", "dvs_cifar10"}
    assert [run.provenance["threads"] for run in list_runs(results)] == 4 * [2], "fewer runs than cores"
    cells = nbformat.read(project.root / "results/notebooks/table6_paper.ipynb", as_version=4).cells
    page = "".join(o.data.get("text/html", "") for c in cells for o in c.get("outputs", []) if "data" in o)
    for run in list_runs(results):
        assert run.complete
        assert run.name in page
    assert "These events are simulated" not in page
    assert "no row can be compared" not in page
    for path in (project.root / "results/notebooks").rglob("*dvs_*.ipynb"):  # no part of the book of the other tests
        path.unlink()


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
@pytest.mark.parametrize(("width", "theme"), [(360, "light"), (1440, "dark")])
def test_pages_ask_no_other_host_fit_and_describe_their_pictures(site, browser, width, theme):
    stub = 'http-equiv="refresh"'  # leads on to the viewer at once
    pages = [p.relative_to(site).as_posix() for p in pages_of(site) if stub not in p.read_text()]
    assert len(pages) > 20
    faults = []
    with served(site) as base:
        page = closed_context(browser, (base,), faults, width, color_scheme=theme).new_page()
        for name in pages:
            page.goto(f"{base}/{name}", wait_until="load")
            wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            assert wide <= 0 or name == "genindex.html", f"{name} is {wide} px too wide at {width} px"
            assert not faults, (name, faults)
            described = page.eval_on_selector_all(
                "article :is(img, [role=img])", "all => all.map(i => i.alt ?? i.ariaLabel)"
            )
            assert all(alt and not re.search(r"\.(svg|png)$", alt) for alt in described), (name, described)
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
        page.locator(".edition-tabs a", has_text="CIFAR-10").click()
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
        assert "slim" in page.locator(".panel h3").inner_text()
        weight = "performance.getEntries().reduce((sum, e) => sum + (e.encodedBodySize ?? 0), 0)"
        assert 200_000 < page.evaluate(weight) < 3_000_000
        page.get_by_label("Dataset").select_option(digits := f"{run.provenance['data']['name']}, quick")
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


def test_trainings_side_by_side_take_different_gpus(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "workflow")
    import forkserver

    monkeypatch.setattr(forkserver, "LOCKS", tmp_path)
    monkeypatch.setenv(forkserver.GPUS, "cuda:0,cuda:1")
    with forkserver.free_gpu() as first, forkserver.free_gpu() as second, forkserver.free_gpu() as third:
        assert (first, second, third) == (["device=cuda:0"], ["device=cuda:1"], [])
    with forkserver.free_gpu() as again:
        assert again == ["device=cuda:0"]
    monkeypatch.delenv(forkserver.GPUS)
    with forkserver.free_gpu() as none:
        assert none == []


def test_a_server_that_ends_before_it_is_ready_is_as_none(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "workflow")
    import forkserver

    with tempfile.TemporaryDirectory(prefix="s-") as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/socket")
        listener.listen()

        def end():
            connection, _ = listener.accept()
            connection.recv(1)
            connection.close()

        thread = threading.Thread(target=end)
        thread.start()
        assert forkserver.ask(f"{folder}/socket", ["combination"]) is None
        thread.join()
        assert forkserver.ask(f"{folder}/none", ["combination"]) is None


def test_a_training_is_told_its_gpu(project, tmp_path):
    """With a CPU in its place."""
    output, environment = tmp_path / "own.ipynb", project.environment | {"SASTC_GPUS": "cpu"}
    command = [sys.executable, "workflow/forkserver.py", "combination", "--output", str(output), "method=baseline"]
    command += [*TINY_SETTINGS, f"results={tmp_path}"]
    for more, told in (([], False), (["--gpu"], True)):
        subprocess.run([*command, *more], cwd=project.root, env=environment, check=True)
        cells = nbformat.read(output, as_version=4).cells
        (given,) = [c.source for c in cells if "injected-parameters" in c.metadata.get("tags", [])]
        assert ('device = "cpu"' in given) == told


def test_dry_run_on_a_cluster_asks_for_a_gpu_for_every_training(project):
    """The profile for Slurm, as far as it goes without a cluster."""
    pytest.importorskip("snakemake_executor_plugin_slurm")
    command = ["workflow/launch.py", "--profile", "slurm", "--scale", "paper", "--only", "table3", "--dry-run"]
    code, output = project.run(*command)
    assert code == 0, output
    assert "combination/imagenet-resnet34-resnet34-sastc" in output
    code, output = project.run(*command, "--verbose")
    assert code == 0, output
    asked = re.findall(r"rule (\w+):(?:.|\n)*?resources: (.+)", output)
    trainings = [resources for rule, resources in asked if rule in ("teacher", "student")]
    assert len(trainings) == 6
    assert all("gpu=1" in resources and "runtime=1440" in resources for resources in trainings)
    (page,) = [resources for rule, resources in asked if rule == "page"]
    assert "gpu=1" not in page
