"""No page uses a run on the JPEG copy of a dataset where one on the original is recorded, whatever it joins."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pandas as pd
import pytest

import companion.pages
from companion import report
from companion.pages import sweeps, tuning
from sastc import load_experiment
from sastc.config import RunConfig
from sastc.explorer.packing import pack_run
from sastc.labels import LABELS
from sastc.records import Run, RunError, run_path, write_json

ROOT = Path(__file__).parents[2]
COPY = "{} (JPEG copy)"
MODULES = [
    report,
    *(importlib.import_module(f"companion.pages.{m.name}") for m in pkgutil.iter_modules(companion.pages.__path__)),
]
OWN = {"companion.closing", *(module.__name__ for module in MODULES)}
FUNCTIONS = {
    f"{function.__module__.removeprefix('companion.').removeprefix('pages.')}.{name}": function
    for module in MODULES
    for name, function in vars(module).items()
    if inspect.isfunction(function)
    and function.__module__ in OWN
    and "results" in inspect.signature(function).parameters
    and name != "plans"  # which asks for folders alone
}
PLANS = {
    "report.with_record": ("explorer", "quick"),
    "table6.recorded": ("table6", "quick"),
    "table3.collect": ("table2", "slim"),
    "table3.table": ("table2", "slim"),
    "table4.collect": ("table4", "quick"),
    "sweeps.collect": ("table7", "slim"),
    "verdicts.claims": ("verdicts", "slim"),
}


def record(config, results, data):
    """A run folder with the least that says what it is, and made-up numbers."""
    folder = run_path(config, results)
    facts = dict(commit="abc", dirty=False, device="x", device_type="cpu", threads=1, python="3", started="x")
    facts |= {"versions": {"torch": "2"}, "data": {"name": data, "test_images": 100}}
    write_json(folder / "config.json", config.to_dict())
    write_json(folder / "provenance.json", facts)
    numbers = dict(accuracy=50.0, last_accuracy=50.0, best_accuracy=51.0, stm=2.0, train_seconds_per_epoch=1.0)
    write_json(folder / "metrics.json", numbers)
    (folder / "history.csv").write_text("epoch,stm,kd_loss,train_seconds,train_cpu_seconds\n1,2,3,4,5\n")
    return folder


def plan_of(name):
    module = name.partition(".")[0]
    own = module if (ROOT / "experiments" / f"{module}.yaml").is_file() else "table2"
    experiment, scale = PLANS.get(name, (own, "slim"))
    return load_experiment(ROOT / "experiments" / f"{experiment}.yaml", scale)


def arguments(function, plan, results):
    """What a page's notebook would give; a function that asks for more must be told here."""
    made = {
        "plan": lambda: plan,
        "experiment": lambda: plan,
        "results": lambda: results,
        "configs": lambda: plan.runs,
        "wanted": lambda: (),
        "changes": lambda: {},
        "found": lambda: [],
        "scale": lambda: plan.scale,
        "sweep": lambda: sweeps.TABLE7,
        "headline": lambda: "x",
        "rows": lambda: tuning.collect(plan, results),
        "runs": lambda: report.collect(plan, results),
    }
    if function.__name__ == "teacher_of":
        made["runs"] = lambda: [Run(run_path(next(c for c in plan.runs if c.teacher_config()), results))]
    asked = inspect.signature(function).parameters.values()
    return {p.name: made[p.name]() for p in asked if p.default is p.empty or p.name in ("results", "changes")}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions_of_pages_use_no_copy_beside_an_original(name, tmp_path, monkeypatch):
    function, plan = FUNCTIONS[name], plan_of(name)
    table2 = load_experiment(ROOT / "experiments" / "table2.yaml", "slim")
    configs = [c for p in (plan, table2, *report.record_plans(plan)) for c in (*p.runs[:6], *p.runs[-1:], *p.teachers)]
    copies = {record(config, tmp_path, COPY.format(LABELS[config.dataset])) for config in configs}
    twice = pd.DataFrame(dict(run=[run_path(table2.runs[0], tmp_path).name], earlier=[51.0], accuracy=[50.0]))
    twice.to_csv(tmp_path / "slim" / "trained_twice.csv", index=False)
    read, reads = Run.read, set()
    monkeypatch.setattr(
        Run, "read", lambda self, file: (reads.add((self.path, file)), read(self, file))[1], raising=True
    )

    def uses_copies():
        reads.clear()
        try:
            result = function(**arguments(function, plan, tmp_path))
        except RunError:  # of what these records do not have
            result = None
        told = str(result).replace("on a JPEG copy, since runs on the original are recorded", "")
        numbers = any(path in copies and file not in ("config.json", "provenance.json") for path, file in reads)
        given = any(isinstance(r, Run) and r.path in copies for r in (result if isinstance(result, list) else [result]))
        return numbers or given or "JPEG copy" in told

    assert uses_copies(), "with nothing but the copy they are used: else this test could not fail"
    for original in {(config.dataset, config.scale, config.train_subset): config for config in configs}.values():
        record(original.replace(seed=99), tmp_path, LABELS[original.dataset])  # which no page's plan has
    assert not uses_copies()


def test_pages_and_notebooks_find_runs_by_one_function():
    """Others would show what :func:`companion.closing.retired` leaves out."""
    direct = re.compile(r"\b(Run\(run_path|find_run|list_runs)\b")
    sources = [
        ROOT / "companion/report.py",
        *(ROOT / "companion/pages").glob("*.py"),
        *(ROOT / "notebooks").glob("*.ipynb"),
    ]
    assert [path.name for path in sources if direct.search(path.read_text(encoding="utf-8"))] == []


def test_a_page_says_what_it_leaves_out_and_what_is_a_copy(tmp_path):
    base = RunConfig(dataset="cifar10", scale="slim", method="kd")
    plan = load_experiment(ROOT / "experiments" / "table2.yaml", "slim")
    copies = [config for config in plan.runs if config.train_subset][:3]
    for config in copies:
        record(config, tmp_path, "CIFAR-10 (JPEG copy)")
    page = report.closing(plan, None, tmp_path)
    assert "<dt>Data</dt><dd>CIFAR-10 (JPEG copy)</dd>" in page
    assert "Not shown" not in page
    given = [Run(run_path(config, tmp_path)) for config in plan.runs]
    record(base.replace(seed=99, train_subset=0), tmp_path, "CIFAR-10")
    assert report.closing(plan, None, tmp_path) == page, "of another number of images"
    record(base.replace(seed=99), tmp_path, "CIFAR-10")
    for runs in (None, given):
        page = report.closing(plan, None, tmp_path, runs)
        assert "3 on a JPEG copy, since runs on the original are recorded" in page
        assert f"0 recorded, {len(plan.runs) - 3} not run" in page
    record(base.replace(dataset="cifar100"), tmp_path, "CIFAR-100 (JPEG copy)")
    assert report.recorded([base.replace(dataset="cifar100")], tmp_path)[0], "another dataset's copy stays"
    record(copies[0], tmp_path / "other", "CIFAR-10 (JPEG copy)")
    assert report.recorded(copies[:1], tmp_path / "other")[0], "and that of another folder"
    (run_path(base.replace(seed=99), tmp_path) / "provenance.json").write_text("damaged")
    assert report.recorded(copies[:1], tmp_path)[0], "a damaged record is shown nowhere, and takes no other's place"


def test_the_explorer_says_whose_data_each_run_has(tmp_path):
    config = RunConfig(dataset="cifar10", scale="slim", method="sastc")
    for seed, name in enumerate(("CIFAR-10 (JPEG copy)", "CIFAR-10")):
        folder = record(config.replace(seed=seed), tmp_path, name)
        packed = pack_run(Run(folder), 10_000)  # before its first epoch
        assert packed["dataset"] == f"{name}, small scale", "by which runs are chosen"
        assert f"({name}, small scale)" in packed["title"]
