"""The workflow's plan: what a recorded run adds to it, and how the time left is told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sastc.config import RunConfig

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
sys.path.insert(0, str(ROOT / "workflow"))
plan = __import__("plan")


def test_the_time_left_follows_the_mean_pace_since_work_began_to_show():
    pace = plan.Pace(10.0, 100.0)
    pace.update(10.0, 0.0)
    assert pace.seconds_left(0.0) == float("inf")
    pace.update(12.0, 30.0)  # the first that shows: the 30 seconds before it are not work
    assert pace.seconds_left(30.0) == float("inf")
    pace.update(32.0, 70.0)
    assert pace.seconds_left(70.0) == pytest.approx(136.0)  # 20 done in 40 s, 68 to go
    pace.update(27.0, 70.0)  # a page of 5 is deleted
    assert pace.seconds_left(70.0) == pytest.approx(146.0)  # its work is to do again, the pace stays
    pace.update(100.0, 300.0)
    assert pace.seconds_left(300.0) == 0.0


@pytest.fixture(scope="module")
def quick():
    return list(plan.make_plan("quick", {}, (), "results", "data").values())


def test_editions_of_a_page_have_titles_of_their_own(quick):
    titles = {job.name: job.title for job in quick if "experiment" in job.parameters}
    assert titles["tuning_quarter"] == "Tuning: learning rate and β"
    assert titles["tuning_slim"] == "Tuning: learning rate and β, small scale"
    assert titles["table2_quarter"] == "Table 2: accuracy", "the largest that the book shows"
    assert titles["table2_slim"] == "Table 2: accuracy, small scale"
    assert titles["table2"] == "Table 2: accuracy, on digits"
    assert len({*titles.values()}) == len(titles)


def timeline(jobs, seconds, cores, book):
    """A made-up launch: work that shows every three seconds, share of the book that is built, and when it ends.

    Teachers come first, then students, pages, and the book; durations vary by a third.
    """
    order, random = {"teacher": 0, "combination": 1}, np.random.default_rng(0)
    free, spans = [20.0] * cores, []  # the engine starts
    for job in sorted(jobs, key=lambda job: order.get(job.notebook, 2)):
        core = free.index(min(free))
        length = seconds[job.notebook if job.config else "page"] * job.cost * random.lognormal(0, 0.3)
        spans.append((job, free[core], free[core] + length))
        free[core] += length
    ready, work = max(free), []
    for second in range(0, int(ready + book), 3):
        done = 0.0
        for job, begin, end in spans:
            share = max(0.0, (second - begin) / (end - begin))
            done += job.cost * (1.0 if share >= 1 else 0.9 * share * bool(job.config))
        work.append((second, done, max(0.0, (second - ready) / book)))
    return work, ready + book


@pytest.mark.parametrize("cores", [2, 4])
@pytest.mark.parametrize("speed", [1.0, 0.4, 1.5])
@pytest.mark.parametrize("guess", [{}, dict(teacher=1.2, page=0.8), dict(combination=0.8, page=1.2)])
def test_the_time_left_is_right_within_a_third_after_two_minutes(quick, cores, speed, guess):
    """On slow and fast machines, and with kinds of jobs whose duration was guessed wrong."""
    seconds = {kind: speed * guess.get(kind, 1.0) for kind in ("teacher", "combination", "page")}
    alone = 80 * plan.BOOK_PAGE_SECONDS
    work, end = timeline(quick, seconds, cores, speed * alone)
    pace, checked = plan.Pace(0.0, sum(job.cost for job in quick) + cores * alone), 0
    for second, done, built in work:
        pace.update(done + built * cores * alone, second)
        if 120 <= second < 0.8 * end:
            assert pace.seconds_left(second) == pytest.approx(end - second, rel=1 / 3), second
            checked += 1
    assert checked > 10


def test_the_share_of_the_book_is_what_sphinx_says_last():
    log = "reading sources... [ 90%] x\nRunning Jupyter-Book v1\n"
    assert plan.book_share("") == plan.book_share(log) == 0
    assert plan.book_share(log + "reading sources... [ 40%] a\nreading sources... [ 50%] b\n") == 0.25
    assert plan.book_share(log + "reading sources... [100%] a\nwriting output... [ 20%] b\r") == 0.6


def trainings(scale, teachers, students):
    """Jobs of trainings alone, by name."""
    config = RunConfig(dataset="cifar10", scale=scale, method="kd")
    configs = [config.teacher_config().replace(seed=seed) for seed in range(teachers)]
    configs += [config.replace(seed=seed) for seed in range(students)]
    return {config.name: plan.training(config, {}) for config in configs}


@pytest.mark.parametrize(
    ("scale", "teachers", "students", "cores", "fit", "threads"),
    [
        ("quarter", 1, 20, 2, 100, (2, 1)),
        ("quarter", 2, 5, 16, 100, (8, 3)),
        ("quarter", 20, 20, 16, 100, (1, 1)),
        ("quarter", 20, 20, 7, 4, (2, 2)),  # three with two threads each, not seven with one
        ("quarter", 20, 20, 4, 0, (4, 4)),
        ("quarter", 0, 1, 1, 100, (1, 1)),
        ("quick", 1, 1, 16, 1, (1, 1)),
    ],
)
def test_runs_have_more_threads_only_where_they_or_those_that_fit_into_memory_are_fewer_than_the_cores(
    scale, teachers, students, cores, fit, threads, monkeypatch
):
    monkeypatch.setattr(plan, "run_bytes", lambda config: 10)
    jobs = trainings(scale, teachers, students) | {"page": plan.Job("table2", "table2", "x", {})}
    found = plan.training_threads(jobs, cores, 10 * fit + 9)
    assert (found["teacher"], found["combination"]) == threads


def test_memory_is_that_of_the_largest_step_of_each_pair(monkeypatch):
    jobs = trainings("quarter", 2, 2)
    for changes in (dict(method="sastc"), dict(method="sastc", timesteps=4), dict(student="resnet18", batch_size=16)):
        config = RunConfig(dataset="cifar10", scale="quarter", **changes)
        jobs[config.name] = plan.training(config, {})
    asked = []
    monkeypatch.setattr(plan, "run_bytes", lambda config: asked.append(config) or 1)
    plan.training_threads(jobs, 2, 100)
    assert [(c.method, c.timesteps, c.student) for c in asked[1:]] == [("sastc", 4, "vgg11"), ("sastc", 2, "resnet18")]


def test_memory_of_a_run_holds_its_images_and_its_step():
    config = RunConfig(dataset="dvs_cifar10", method="kd", student="vgg11", timesteps=2, width=1 / 32, batch_size=2)
    images = 10_000 * 2 * 2 * config.image_size**2
    assert 0 < plan.run_bytes(config) - plan.PROCESS_BYTES - images < 10**8
    folders = RunConfig(dataset="imagefolder", method="teacher", width=1 / 32, batch_size=2, image_size=32)
    assert 0 < plan.run_bytes(folders) - plan.PROCESS_BYTES < 10**8, "photographs are not kept"


def test_a_forked_kernel_computes_with_the_threads_that_its_job_has(tmp_path, monkeypatch):
    forkserver = __import__("forkserver")

    def kernel():
        Path(sys.argv[-1]).write_text(f"{torch.get_num_threads()} {os.environ['OMP_NUM_THREADS']}")

    monkeypatch.setattr("ipykernel.kernelapp.launch_new_instance", kernel)
    forked = forkserver.ForkedKernel(2)
    forked.start(str(tmp_path / "told"))
    assert forked.wait() == 0
    assert (tmp_path / "told").read_text() == "2 2"


def test_a_page_follows_all_that_it_reads():
    jobs = plan.make_plan("quick", {}, (), "results", "data")
    for scale in ("slim", "quarter"):
        assert any(f"/{scale}/" in path for path in jobs["verdicts_slim"].record), scale
    bench = {path for path in jobs["bench"].record if "/slim/" in path}
    assert bench <= set(jobs["verdicts_slim"].record)
    assert any(path.endswith("diverged.json") for path in bench), "a trial that diverged is a result, too"
    assert not any("/quarter/" in path for path in jobs["table2_slim"].record)


def test_a_digest_follows_the_content_and_the_set_of_records(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "ROOT", tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (1000, 1000))
    job = plan.Job("table2", "table2_slim", "x", {}, record=("a", "b"))
    plan.write_digests({"x": job})
    digest = tmp_path / job.digest
    before = digest.read_text()
    assert digest.stat().st_mtime == 1000
    (tmp_path / "b").write_text("other")
    plan.write_digests({"x": job})
    assert digest.read_text() != before
    assert digest.stat().st_mtime > 1000
    assert plan.Job("table2", "table2_slim", "x", {}, record=("a",)).digest != job.digest
    assert plan.Job("table2", "table2", "x", {}).digest is None


def write(root, files):
    """Files below a folder; a list is a notebook's cells of code, after one of words that names everything."""
    for name, content in files.items():
        if isinstance(content, list):
            words = {"cell_type": "markdown", "source": ["import companion.other\n", "two"]}
            cells = [words, *({"cell_type": "code", "source": [cell]} for cell in content)]
            content = json.dumps({"cells": cells})
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_a_page_is_drawn_from_what_its_notebook_imports(tmp_path):
    write(tmp_path, {
        "notebooks/page.ipynb": ["%time 1", "from companion.pages import one\nimport missing, numpy"],
        "notebooks/own.ipynb": ["import sastc\nsastc.explore('results')", "import companion.figures as f"],
        "notebooks/empty.ipynb": [],
        "companion/__init__.py": "",
        "companion/figures.py": "import sastc.records",
        "companion/other.py": "paper('two')",
        "companion/pages/__init__.py": "",
        "companion/pages/one.py": "def late():\n    from companion.pages.two import name\n",
        "companion/pages/two.py": "from .. import figures\nfrom . import three\n",
        "companion/pages/three.py": "import companion.pages.one\nread('one.csv')\n",
        "companion/pages/four.py": "from companion.pages import one\n",
        "sastc/records.py": "import companion.other",
        "sastc/explorer/__init__.py": "",
        "sastc/explorer/draw.js": "",
        "paper/one.csv": "",
        "paper/two.csv": "",
    })  # fmt: skip
    pages = [f"companion/pages/{name}.py" for name in ("__init__", "one", "three", "two")]
    assert plan.drawn_from("page", tmp_path) == (
        "companion/__init__.py", "companion/figures.py", *pages, "paper/one.csv"
    )  # fmt: skip
    assert plan.drawn_from("own", tmp_path) == (
        "companion/__init__.py", "companion/figures.py", "sastc/explorer/__init__.py", "sastc/explorer/draw.js"
    )  # fmt: skip
    assert plan.drawn_from("empty", tmp_path) == ()


def test_what_is_read_of_imports_is_what_python_imports():
    """All that is loaded when the page on controls imports its modules; inside functions there may be more."""
    code = "import sys\nfrom companion import figures, notebook, report\nfrom companion.pages import controls\n"
    code += "print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'companion'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {Path(file).relative_to(ROOT).as_posix() for file in done.stdout.split()}
    found = {file for file in plan.drawn_from("controls") if file.endswith(".py")}
    assert loaded <= found
    assert found - loaded == {"companion/sizing.py"}, "which report imports where it needs it"


def test_an_edit_of_one_page_draws_no_other_again():
    drawn = {name: set(plan.drawn_from(name)) for name in NOTEBOOKS}
    follow = {name for name, files in drawn.items() if "companion/pages/controls.py" in files}
    assert follow == {"controls", "attention", "verdicts"}
    pages = {name: {file for file in files if file.startswith("companion/pages/")} for name, files in drawn.items()}
    shared = {"companion/pages/__init__.py", "companion/pages/parts.py"}
    assert pages["combination"] == {"companion/pages/combination.py"} | shared
    assert pages["teacher"] == set()
    assert [name for name, files in drawn.items() if "sastc/explorer/draw.js" in files] == ["explorer"]
    assert {"paper/noisy_labels.csv", "paper/energy_constants.csv"} <= drawn["forensics"]
    assert all({"companion/report.py", "companion/closing.py"} <= files for files in drawn.values())


def test_locks_are_found_in_a_folder_of_any_name(tmp_path):
    import engine

    locks = tmp_path / "{0}" / "{n"
    locks.mkdir(parents=True)
    for name in ("0.input.lock", "12.input.lock", "3.output.lock", "x.input.lock", "0.input.lock~"):
        (locks / name).touch()
    found = list(engine.files_like(f"{locks}/{{n,[0-9]+}}.input.lock"))
    assert found == [(f"{locks}/0.input.lock", {"n": "0"}), (f"{locks}/12.input.lock", {"n": "12"})]


OWN = "book/examples/own_method.py:LogitMSE"


@pytest.mark.parametrize(("scale", "students"), [("quick", 19), ("slim", 10)])
def test_a_method_of_ones_own_is_trained_beside_all_others_or_at_larger_scales_beside_kd(scale, students, tmp_path):
    """Five seeds of the method and of KD; the page shows what else is recorded."""
    changes = {"method": OWN, "alpha": 0.5}
    jobs = plan.make_plan(scale, changes, ("bench",), str(tmp_path), "data")
    trained = [job for job in jobs.values() if job.notebook == "combination"]
    assert len(trained) == students
    mine = [job for job in trained if job.config.method == "logit_mse"]
    assert all((job.parameters["method"], job.parameters["alpha"]) == (OWN, 0.5) for job in mine)
    assert {job.config.method for job in trained} >= {"logit_mse", "kd"}
    assert scale == "quick" or {job.config.method for job in trained} == {"logit_mse", "kd"}
    page = jobs["bench" if scale == "quick" else f"bench_{scale}"]
    assert set(page.needs) == {job.name.split("/")[1] for job in jobs.values() if job is not page}
    assert page.parameters["changes"] == changes


def test_a_methods_file_is_one_of_the_folder_where_the_launcher_is_called(monkeypatch, tmp_path):
    launch = __import__("launch")
    monkeypatch.chdir(tmp_path)
    assert launch._from_here("method=own.py:Mine") == f"method={tmp_path}/own.py:Mine"
    assert launch._from_here("method=kd") == "method=kd"
    assert launch._from_here("teacher=own.py:mine") == f"teacher={tmp_path}/own.py:mine"
    assert launch._from_here("dataset=own.py:Mine") == "dataset=own.py:Mine"
    monkeypatch.chdir(ROOT / "book")
    assert launch._from_here("method=examples/own_method.py:LogitMSE") == f"method={OWN}"
