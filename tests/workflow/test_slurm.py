"""The workflow on a Slurm cluster of this one machine; skipped where Slurm is not installed."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml
from project import Project

NODE = Path(__file__).with_name("slurm_node.sh")
PROGRAMS = {"without": ["sbatch", "munged", "slurmctld", "slurmd"]}
PROGRAMS["with"] = [*PROGRAMS["without"], "slurmdbd", "mariadbd"]
PATH = os.environ["PATH"] + os.pathsep + "/usr/sbin"
COMMAND = ["workflow/launch.py", "--profile", "slurm", "--only", "attention", "--no-book"]
pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module", params=["without", "with"])
def cluster(request, tmp_path_factory):
    """The environment that leads to a cluster without and with accounting."""
    missing = [program for program in PROGRAMS[request.param] if shutil.which(program, path=PATH) is None]
    if os.environ.get("SASTC_TEST_SLURM") != "1":  # it starts daemons as root
        pytest.skip("sets up a Slurm on this machine: set SASTC_TEST_SLURM=1")
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs to be root, and {' '.join(missing) or 'nothing else'}")
    if Path("/etc/slurm/slurm.conf").exists():
        pytest.skip("this machine has a Slurm of its own")
    pytest.importorskip("snakemake_executor_plugin_slurm")
    folder = tmp_path_factory.mktemp("slurm")
    environment = {"PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf"), "accounting": request.param}
    try:
        more = ["--accounting"] if request.param == "with" else []
        subprocess.run([NODE, "start", folder, *more], env=os.environ | environment, check=True)
        yield environment
    finally:
        subprocess.run([NODE, "stop", folder], env=os.environ | environment, check=True)


@pytest.fixture
def project(cluster, request, tmp_path):
    """A copy of the project with one small experiment, and a profile that looks at the jobs more often."""
    project = Project(request.config.rootpath, tmp_path)
    project.experiment("attention", {"method": "sastc"})
    profile = tmp_path / "workflow/profiles/slurm/config.yaml"
    settings = {"slurm-init-seconds-before-status-checks": 3, "latency-wait": 5}
    profile.write_text(yaml.safe_dump(yaml.safe_load(profile.read_text()) | settings))
    paths = os.pathsep.join([project.environment["PATH"], "/usr/sbin"])
    project.environment |= cluster | {"PATH": paths}
    return project


def jobs(project, *states):
    """Identifiers of the jobs in one of these states."""
    command = ["squeue", "--noheader", "--format=%A", f"--states={','.join(states)}"]
    done = subprocess.run(command, env=project.environment, check=True, capture_output=True, text=True)
    return done.stdout.split()


def first_running(project, launcher):
    deadline = time.monotonic() + 180
    while not (running := jobs(project, "RUNNING")):
        assert launcher.poll() is None, launcher.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return running


def left_behind(project):
    """Processes of the launch that are in no job of the cluster."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            environment = process.environ()
            if environment.get("SASTC_WORKFLOW") == str(project.root) and "SLURM_JOB_ID" not in environment:
                found.append(" ".join(process.cmdline()))
    return found


def test_a_job_that_is_cancelled_is_sent_again(project):
    launcher = project.start(*COMMAND)
    (job, *_) = first_running(project, launcher)
    subprocess.run(["scancel", job], env=project.environment, check=True)
    output, _ = launcher.communicate(timeout=500)
    log = (project.root / "results/.workflow/snakemake.log").read_text()
    assert launcher.returncode == 0, output + log
    assert f"SLURM-job '{job}' failed, SLURM status is: 'CANCELLED'" in log
    assert (project.root / "results/notebooks/attention.ipynb").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_launcher_that_is_stopped_leaves_nothing_unsaid(project, number):
    project.experiment("attention", {"method": "sastc", "epochs": 2000})  # work that lasts until it is stopped
    launcher = project.start(*COMMAND)
    first_running(project, launcher)
    launcher.send_signal(number)
    output, _ = launcher.communicate(timeout=150)
    left = jobs(project, "PENDING", "RUNNING")
    assert launcher.returncode == 130
    assert "the same command goes on from here" in output
    assert not left_behind(project)
    assert not list((project.root / ".snakemake/locks").glob("*"))
    if left:  # as without accounting, where the plugin's scancel --clusters=all fails
        assert re.search(r"end them: scancel ([\d ]+)", output)[1].split() == left
        subprocess.run(["scancel", *left], env=project.environment, check=True)
    else:
        assert "Slurm has no jobs left of this launch" in output


@pytest.mark.parametrize(
    ("squeue", "words"),
    [
        ("echo '7 RUNNING rule_a'; echo '9 COMPLETING rule_b'", "  7 RUNNING rule_a\n  end them: scancel 7"),
        ("true", "Slurm has no jobs left of this launch"),
        ("echo 'no controller' >&2; exit 1", "jobs 7, 9 still run: no controller\n  see them: squeue --name=u-1"),
    ],
)
def test_jobs_left_are_named_with_the_command_that_ends_them(tmp_path, monkeypatch, squeue, words):
    """With a squeue that is made up: no Slurm is needed."""
    monkeypatch.syspath_prepend(NODE.parents[2] / "workflow")
    import launch

    program, log = tmp_path / "squeue", tmp_path / "log"
    program.write_text(f'#!/bin/sh\n[ "$2" = --name=u-1 ] || exit 3\n{squeue}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    log.write_text("Building DAG of jobs...\n")
    assert launch.jobs_left(log) == ""
    sent = [f"Job {i} has been submitted with SLURM jobid {job} (log: x)." for i, job in enumerate((7, 9))]
    log.write_text("\n".join(["SLURM run ID: u-1", *sent]))
    assert words in launch.jobs_left(log)
