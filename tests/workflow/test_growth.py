"""What the book does for recorded runs grows no faster than their number: in calls and in bytes, not in time."""

import cProfile
import dataclasses
import pstats
import sys
from pathlib import Path

import pytest
from copied_runs import copy_runs

from companion import closing, report
from sastc.experiments import load_experiment
from sastc.records import Run, list_runs

ROOT = Path(__file__).parents[2]
SLIM = ROOT / "results" / "slim"
BYTES = 50_000  # of the site that a recorded run may take
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "book" / "_ext")]
plan, relations, runs, search = map(__import__, ("plan", "relations", "runs", "search"))

pytestmark = pytest.mark.skipif(not SLIM.is_dir(), reason="needs the recorded runs")


def relate(recorded: list[Run], results: Path) -> None:
    """How the runs belong together, and where their files are."""
    runs.relate(recorded, {"runs/table2_slim": "Table 2"}, "https://host/sastc")


def write(recorded: list[Run], results: Path) -> list[int]:
    """What the book says of every recorded run; bytes of the site for each."""
    related = runs.relate(recorded)
    sizes = [len(runs.script(run, "", related[run.name]).encode()) for run in recorded]
    shared = len(runs.table(recorded)) + len(search.run_names(recorded))
    return [size + len(runs.STUB) + shared // len(recorded) for size in sizes]


def show(recorded: list[Run], results: Path) -> None:
    """What a page does for the runs that it shows."""
    experiment = load_experiment(ROOT / "experiments" / "table2.yaml", "slim")
    students = tuple(run.config for run in recorded if run.config.method != "teacher")
    rows = report.collect(dataclasses.replace(experiment, runs=students), results)
    report.differences_table(rows)
    closing.footer(recorded, "make book")


def make_plan(recorded: list[Run], results: Path) -> None:
    """No job for a recorded run."""
    jobs = plan.make_plan("quick", {}, ("table2", "controls"), str(results), "data")
    assert not [job for job in jobs.values() if job.config is not None and job.config.scale != "quick"]


@pytest.mark.parametrize("work", [relate, write, show, make_plan])
def test_calls_and_bytes_of_a_recorded_run_do_not_grow_with_their_number(work, tmp_path, monkeypatch):
    recorded = list_runs(SLIM)
    few = [next(run for run in recorded if run.config.method == method) for method in ("teacher", "kd", "sastc")]
    calls, reads, sizes = [], [], []
    read = Run.read
    monkeypatch.setattr(Run, "read", lambda run, name: reads.append(name) or read(run, name))
    monkeypatch.setattr(relations, "ROOT", tmp_path)  # where git has the files of all
    for times in (1, 1, 2, 4):  # the first is not counted: it fills what is kept
        results = tmp_path / f"{len(calls)}"
        made = copy_runs(few, results, 5 * times)
        files = frozenset(file.relative_to(tmp_path).as_posix() for run in made for file in run.path.iterdir())
        monkeypatch.setattr(runs, "tracked", lambda files=files: files)
        reads.clear()
        profile = cProfile.Profile()
        sizes += profile.runcall(work, made, results) or []
        calls.append((pstats.Stats(profile).total_calls, len(reads)))
    for one, two, four in zip(*calls[1:], strict=True):
        assert four - two < 2.1 * (two - one) + 100, "more than twice for twice as many runs"
    assert max(sizes, default=0) <= BYTES
