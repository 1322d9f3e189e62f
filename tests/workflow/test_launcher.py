"""The launcher and single notebooks, without the book: words, folders, signals, GPUs, a checkout of any name."""

import contextlib
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

import nbformat
import psutil
import pytest
from project import Project
from recordings import recordings_for_training
from tiny import TINY, TINY_SETTINGS

from sastc.config import ConfigError
from sastc.experiments import load_experiment
from sastc.records import list_runs

pytestmark = pytest.mark.workflow
sys.path.insert(0, str(Path(__file__).parents[2] / "workflow"))
execute, forkserver, launch, plan = map(__import__, ("execute", "forkserver", "launch", "plan"))


@pytest.fixture(scope="module")
def project(tmp_path_factory, request):
    project = Project(request.config.rootpath, tmp_path_factory.mktemp("project"))
    project.experiment("attention", {"method": "sastc", "seed": [0, 1]})
    return project


def test_papermill_itself_stops_at_a_wrong_parameter(project, tmp_path):
    command = ["-m", "papermill", "notebooks/combination.ipynb", str(tmp_path / "out.ipynb"), "-k", "python3"]
    code, output = project.run(*command, "--cwd", ".", "-p", "timestep", "3")
    assert code != 0
    assert "unknown parameter 'timestep': did you mean timesteps" in output
    assert not list((project.root / "results").rglob("*timestep*"))


@pytest.mark.parametrize("by", ["papermill", "forkserver.py"])
def test_every_field_is_taken_and_folders_are_relative_to_where_the_user_stands(project, tmp_path, by):
    """And the notebook's own to the checkout. Without a server, which is told a GPU: here a CPU in its place."""
    settings = [*TINY_SETTINGS, "method=kd", "results=mine"]
    words = [project.root / "workflow/forkserver.py", "combination", "--gpu", "--output", "out.ipynb", *settings]
    if by == "papermill":
        words = ["-m", "papermill", project.root / "notebooks/combination.ipynb", "out.ipynb", "-k", "python3"]
        words += [word for setting in settings for word in ("-p", *setting.split("="))]
    environment = project.environment | {"SASTC_GPUS": "cpu"}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    runs = {run.config.method: run for run in list_runs(tmp_path / "mine")}
    assert set(runs) == {"kd", "teacher"}
    assert all(run.complete for run in runs.values())
    assert runs["kd"].config.epochs == TINY["epochs"]
    assert not (project.root / "mine").exists()
    assert not (tmp_path / "results").exists()
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    (given,) = [c.source for c in cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert ('device = "cpu"' in given) == (by == "forkserver.py")


def test_a_notebook_runs_in_a_checkout_of_any_name(project, tmp_path):
    root = tmp_path / 'a {b} it\'s {0} "ü" $HOME %s'
    root.mkdir()
    code, output = Project(project.root, root).run("workflow/execute.py", "benchmarks")
    assert code == 0, output
    assert (root / "results/notebooks/own/benchmarks.ipynb").exists()


def test_braces_in_the_name_of_the_checkout(tmp_path, request):
    name = "}{0}a{b"
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


def test_one_command_puts_a_method_of_ones_own_beside_the_others_on_a_student_of_ones_own(tmp_path, request):
    (tmp_path / "checkout").mkdir()
    (tmp_path / "mine.py").write_text(OWN)
    project = Project(request.config.rootpath, tmp_path / "checkout")
    project.experiment("bench", {"method": ["kd", "twd"]})
    shutil.copy(project.root / "book/examples/own_pair.py", tmp_path / "pair.py")
    own = f"method={tmp_path}/mine.py:Louder", "factor=1.5", f"student={tmp_path}/pair.py:SmallSNN"
    words = *own, "--only", "bench", "--no-book"
    code, output = project.run("workflow/launch.py", *words)
    assert code == 0, output + (project.root / "results/.workflow/snakemake.log").read_text()
    runs = {run.config.method: run for run in list_runs(project.root / "results")}
    assert set(runs) == {"teacher", "kd", "twd", "louder"}
    assert runs["louder"].config.factor == 1.5
    assert {run.config.student for run in runs.values()} == {"", "small_snn"}
    page = (project.root / "results/notebooks/bench.ipynb").read_text()
    assert "#method-louder" in page
    assert "small_snn &amp; ResNet-19" in page
    assert "3 of 3 methods were trained on Digits" in page
    assert "mine.py, lines 5 to 12" in page
    code, output = project.run("workflow/launch.py", *words, "--dry-run")
    assert "Nothing to be done" in output, output


def test_a_dry_run_with_settings_anywhere_a_home_folder_and_braces(project, tmp_path, monkeypatch):
    monkeypatch.setitem(project.environment, "HOME", str(tmp_path))
    changes = dict(batch_size=8, epochs=3, timesteps=4)
    batch_size, epochs, timesteps = (f"{name}={value}" for name, value in changes.items())
    command = [batch_size, "--only", "attention", epochs, "--dry-run", timesteps]
    code, output = project.run("workflow/launch.py", *command, "--results", "~/{runs} of $HOME", "--data=~/images")
    assert code == 0, output
    experiment = load_experiment(project.root / "experiments/attention.yaml", "quick", changes)
    assert all(config.name in output for config in experiment.runs)
    assert "attention" in output
    settings = json.loads((project.root / "results/.workflow/settings.json").read_text())
    assert (settings["results"], settings["data"]) == (f"{tmp_path}/{{runs}} of $HOME", f"{tmp_path}/images")
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
def test_parameters_are_checked_before_anything_runs(arguments, words, capsys):
    assert execute.main(arguments) == 2
    assert words in capsys.readouterr().err


@pytest.fixture
def words_of(monkeypatch, tmp_path, capsys):
    """What the launcher says of words that it refuses, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "ROOT", tmp_path)  # where it would leave its lock
    handler = signal.getsignal(signal.SIGTERM)

    def refused(*arguments):
        monkeypatch.setattr(sys, "argv", ["launch.py", *arguments])
        try:
            code = launch.main()
        except SystemExit as end:  # by argparse
            code = end.code
        assert code == 2
        return capsys.readouterr().err

    yield refused
    signal.signal(signal.SIGTERM, handler)


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
def test_the_launcher_checks_its_words_before_anything_runs(words_of, arguments, words):
    assert words in words_of(*arguments)


def test_an_experiment_without_its_notebook_is_named(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/own.yaml").write_text("title: x\nnotebook: nosuch\n")
    monkeypatch.setattr(plan, "ROOT", tmp_path)
    with pytest.raises(ConfigError, match=r"experiments/own.yaml: notebook='nosuch': is not below notebooks/"):
        plan.make_plan("quick", {}, ("own",), "results", "data")


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


def test_recordings_on_the_disk_to_table_6_by_its_command(project, tmp_path):
    """The printed command, with settings that make it small, on a few made-up recordings in the published formats."""
    data, results = recordings_for_training(tmp_path / "data"), tmp_path / "results"
    command = load_experiment(project.root / "experiments/table6.yaml", "paper").command.split()[1:]
    command += ["--data", str(data), "--results", str(results), "--no-book"]
    assert len(plan.make_plan("paper", {}, ("table6",), results, data)) == 35, "30 students, 4 teachers, the page"
    small = dict(method="sastc", teacher_input="mean_frame", seed=0, timesteps=2, width=1 / 32, epochs=1)
    small |= dict(teacher_epochs=1)
    settings = [f"{name}={value}" for name, value in small.items()]
    code, output = project.run(*command, *settings, "--cores", "4", "--dry-run", "--verbose")
    assert code == 0, output
    assert output.count("threads: 2") == 4, "fewer runs than cores"
    code, output = project.run(*command, *settings, "--cores", "2")
    assert code == 0, output
    assert {run.config.dataset for run in list_runs(results)} == {"dvs_gesture", "dvs_cifar10"}
    cells = nbformat.read(project.root / "results/notebooks/table6_paper.ipynb", as_version=4).cells
    page = "".join(o.data.get("text/html", "") for c in cells for o in c.get("outputs", []) if "data" in o)
    for run in list_runs(results):
        assert run.complete
        assert run.name in page
    assert "These events are simulated" not in page
    assert "no row can be compared" not in page


def test_trainings_side_by_side_take_different_gpus(monkeypatch, tmp_path):
    monkeypatch.setattr(forkserver, "LOCKS", tmp_path)
    monkeypatch.setenv(forkserver.GPUS, "cuda:0,cuda:1")
    with forkserver.free_gpu() as first, forkserver.free_gpu() as second, forkserver.free_gpu() as third:
        assert (first, second, third) == (["device=cuda:0"], ["device=cuda:1"], [])
    with forkserver.free_gpu() as again:
        assert again == ["device=cuda:0"]
    monkeypatch.delenv(forkserver.GPUS)
    with forkserver.free_gpu() as none:
        assert none == []


def test_a_server_that_ends_before_it_is_ready_is_as_none():
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


def test_dry_run_on_a_cluster_asks_for_a_gpu_for_every_training(project):
    """The profile for Slurm, as far as it goes without a cluster."""
    pytest.importorskip("snakemake_executor_plugin_slurm")
    words = "--profile", "slurm", "--scale", "paper", "--only", "table3", "--dry-run", "--verbose"
    code, output = project.run("workflow/launch.py", *words)
    assert code == 0, output
    assert "combination/imagenet-resnet34-resnet34-sastc" in output
    asked = re.findall(r"rule (\w+):(?:.|\n)*?resources: (.+)", output)
    trainings = [resources for rule, resources in asked if rule in ("teacher", "student")]
    assert len(trainings) == 6
    assert all("gpu=1" in resources and "runtime=1440" in resources for resources in trainings)
    (page,) = [resources for rule, resources in asked if rule == "page"]
    assert "gpu=1" not in page
