"""How pages end, and that all pages of results have one shape."""

import ast
import html
import json
import math
import re
import runpy
import shlex
from pathlib import Path

import pandas as pd
import pytest

from companion import report
from companion.pages import parts
from sastc.config import RunConfig
from sastc.experiments import Experiment
from sastc.records import Run, list_runs, run_path, write_json

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
RUNS = {"combination", "teacher"}  # a run says nothing of the paper
OTHERS = {"benchmarks", "explorer", "precision"}  # what they ask is not in the paper


def commands(page):
    """The commands of a box, split as a shell does."""
    return [shlex.split(html.unescape(c)) for c in re.findall(r"<pre>(.+?)</pre>", page)]


def test_closing_of_a_page_has_its_parameters(tmp_path):
    plan = Experiment("table7", "x", "table7", "slim", (RunConfig(method="kd"),))
    draw, train = commands(report.closing(plan, {"epochs": 2, "method": "kd"}, tmp_path))
    assert draw[:7] == ["papermill", "notebooks/table7.ipynb", "own.ipynb", "--cwd", ".", "-p", "experiment"]
    assert draw[7:11] == ["table7", "-p", "scale", "slim"]
    assert draw[11:14] == ["-p", "results", str(tmp_path)]
    assert draw[14:] == ["-y", 'changes: {"epochs": 2, "method": "kd"}']
    words = "python workflow/launch.py epochs=2 method=kd --scale slim --only table7"
    assert train == words.split(), "a setting after --only would be read as the name of an experiment"
    assert "0 recorded, 1 not run" in report.closing(plan, None, tmp_path)


def test_a_run_that_diverged_was_run(tmp_path):
    plan = Experiment("tuning", "x", "tuning", "slim", tuple(RunConfig(method="kd", seed=s) for s in range(3)))
    write_json(run_path(plan.runs[0], tmp_path) / "diverged.json", dict(epoch=1, what="the loss"))
    assert "0 recorded, 1 diverged, 2 not run" in report.closing(plan, None, tmp_path)
    recorded(tmp_path, plan.runs[1], "CIFAR-10", 50.0)
    assert "<span>1 run, 1 diverged</span>" in parts.opening(plan, "", tmp_path)


def test_footer_names_what_the_scale_changes(tmp_path):
    facts = dict(commit="a", dirty=False, device="a CPU", threads=1, versions={"torch": "2"}, python="3")
    configs = [RunConfig(dataset="cifar10", scale=s, method="kd", epochs=e) for s, e in (("slim", 9), ("slim", 12))]
    for config in configs:
        for name, content in dict(
            provenance=facts | {"data": {"name": "x"}}, metrics={}, config=config.to_dict()
        ).items():
            write_json(run_path(config, tmp_path) / f"{name}.json", content)
    page = report.footer([Run(run_path(c, tmp_path)) for c in configs], "x")
    assert "epochs = 9, 12 (paper 240)" in page
    assert "gamma = 1 (paper 0.3)" in page
    assert "beta" not in page
    assert "Differences from the paper" not in report.footer([], "x")


@pytest.mark.parametrize("scales", [("quick",), ("slim",), ("quick", "slim")])
def test_a_smoke_test_gives_no_answer(tmp_path, scales):
    configs = [RunConfig(dataset="cifar10", scale=scale, method="kd") for scale in scales]
    for config in configs:
        contents = dict(provenance={"data": {"name": "x"}}, metrics={}, config=config.to_dict())
        for name, content in contents.items():
            write_json(run_path(config, tmp_path) / f"{name}.json", content)
    plan = Experiment("table7", "x", "table7", "quick", tuple(configs))
    page = parts.opening(plan, "SASTC wins.", tmp_path)
    answer = re.search(r'<p class="headline">(.*?)</p>', page)[1]
    assert "SASTC wins." in page
    assert ("no evidence" in answer) == (scales == ("quick",))
    assert ("SASTC wins." in answer) == (scales != ("quick",))


def test_closing_of_a_page_without_runs_has_nothing_to_train():
    plan = Experiment("forensics", "x", "forensics", "quick", (), needs_runs=False)
    page = report.closing(plan)
    assert len(commands(page)) == 1
    assert "none needed" in page


def test_box_of_a_run_quotes_lists(tmp_path):
    run = Run(run_path(RunConfig(method="kd", milestones=(0.5, 0.75), timesteps=3), tmp_path))
    run.path.mkdir(parents=True)
    (run.path / "config.json").write_text(json.dumps(RunConfig(method="kd", milestones=(0.5, 0.75)).to_dict()))
    papermill, checked = commands(report.rerun_box(run, "combination"))
    assert papermill[-2:] == ["-y", "milestones: [0.5, 0.75]"] or "milestones: [0.5,0.75]" in papermill
    assert checked[:3] == ["python", "workflow/execute.py", "combination"]


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda p: p.stem)
def test_pages_have_one_shape(path):
    """The answer, a figure or table, the paper's claim and our runs, uncertainty, provenance, in this order."""
    cells = json.loads(path.read_text())["cells"]
    texts = ["".join(c["source"]) for c in cells]
    code = [t for c, t in zip(cells, texts, strict=True) if c["cell_type"] == "code"]
    for source in code:
        ast.parse(source)
    end = "report.rerun_box(" if path.stem in RUNS else "closing("
    assert sum(end in source for source in code) == 1
    assert texts[0].startswith("# ")
    if path.stem in RUNS:
        marks = ["report.run_summary(", "## Provenance"]
    else:
        opening = texts[3]
        assert "parts.opening(" in opening or 'class="headline"' in opening, "the answer is the first thing on the page"
        drawn = r"parts\.figure\(|table\(|figures\.\w+\(\w|show\(|bullets\(|explore\("
        shown = next(i for i, t in enumerate(texts) if i > 3 and re.search(drawn, t))
        claim = next((i for i, t in enumerate(texts) if "**What the paper says" in t), len(texts))
        assert 3 < shown < claim or path.stem in OTHERS, "then a figure or a table"
        marks = [opening, "**What the paper says", "## Uncertainty", "## Provenance"]
        marks = [m for m in marks if m != "**What the paper says" or path.stem not in ("forensics", "verdicts")]
        marks = marks if path.stem not in OTHERS else marks[:1]
    whole, place = "\n".join(texts), -1
    for mark in marks:
        found = whole.find(mark, place + 1)
        assert found > place, f"{mark!r} is missing, or not after what stands before it"
        place = found


def recorded(results, config, data, accuracy):
    folder = run_path(config, results)
    write_json(folder / "config.json", config.to_dict())
    write_json(folder / "provenance.json", {"data": {"name": data}, "commit": "abc"})
    numbers = dict(accuracy=accuracy, last_accuracy=accuracy, best_accuracy=accuracy + 1, stm=2.0)
    write_json(folder / "metrics.json", numbers)


def test_runs_on_a_copy_and_on_the_original_are_never_together(tmp_path):
    base = RunConfig(dataset="cifar10", scale="slim", method="kd")
    plan = Experiment("x", "x", "x", "slim", tuple(base.replace(seed=seed) for seed in range(3)))
    for config in plan.runs[:2]:
        recorded(tmp_path, config, "CIFAR-10 (JPEG copy)", 50.0)

    def shown():
        frames = parts.frame(plan, tmp_path), report.collect(plan, tmp_path)
        assert [list(f[f.complete].accuracy) for f in frames[:1]] == [list(f[f.complete].accuracy) for f in frames[1:]]
        complete = [run for run in report.runs_of(plan, tmp_path) if run.complete]
        assert {run.provenance["data"]["name"] for run in complete} == {
            parts.place(plan, tmp_path)[6:].partition(", small")[0]
        }
        return list(frames[0][frames[0].complete].accuracy)

    assert shown() == [50.0, 50.0], "the copy, where there is nothing else"
    recorded(tmp_path, plan.runs[2], "CIFAR-10", 90.0)
    assert shown() == [90.0]
    assert parts.place(plan, tmp_path) == "Ours: CIFAR-10, small-scale runs."


def test_accuracies_of_the_copy_are_kept(tmp_path):
    root = Path(__file__).parents[2]
    table = pd.read_csv(root / "results" / "jpeg_copy.csv").set_index("run")
    for run in list_runs(root / "results"):
        if "JPEG copy" in run.provenance["data"]["name"]:
            row = table.loc[run.name]
            numbers = [
                run.metrics.get(name, math.nan) for name in ("accuracy", "last_accuracy", "best_accuracy", "stm")
            ]
            assert row[["accuracy", "last_accuracy", "best_accuracy", "stm"]].tolist() == pytest.approx(
                numbers, nan_ok=True
            )
            assert row.commit == run.provenance["commit"]
            assert RunConfig.from_arguments(row.settings.split(" ")).name == run.name
    config = RunConfig(dataset="cifar10", scale="slim", method="kd")
    write_table = runpy.run_path(str(root / "workflow" / "retired.py"))["main"]
    recorded(tmp_path, config, "CIFAR-10 (JPEG copy)", 50.0)
    write_table(tmp_path)
    recorded(tmp_path, config, "CIFAR-10", 90.0)
    write_table(tmp_path)
    assert pd.read_csv(tmp_path / "jpeg_copy.csv").accuracy.tolist() == [50.0], "what has left stays in the table"


def test_every_choice_of_the_variants_has_a_row():
    page = (NOTEBOOKS.parent / "book" / "choices.md").read_text(encoding="utf-8")
    rows = "\n".join(line for line in page.splitlines() if line.startswith("|"))
    differing = {"teacher_reshuffle"}
    for dataset in ("cifar10", "cifar100", "imagenet", "dvs_gesture"):
        for method in ("teacher", "baseline", "kd", "feature_kd", "sastc"):
            given = dict(dataset=dataset, method=method, scale="paper")
            paper, released = (RunConfig(**given, variant=v).to_dict() for v in ("paper", "released"))
            differing |= {name for name in paper if paper[name] != released[name]}
    differing -= {"variant"}
    assert {"reshuffle", "partial_batch", "headline", "hidden_init"} <= differing
    (several,) = [line for line in rows.splitlines() if line.startswith("| several GPUs")]
    for field in (
        "batch_norm",
        "similarity",
    ):  # as each process of the released training has them; both variants do not
        assert f"`{field}=per_process`" in several
        assert RunConfig(dataset="cifar10", scale="paper", variant="released").replace(**{field: "per_process"})
        assert RunConfig(dataset="cifar10", scale="paper", variant="released").to_dict()[field] == "global"
    assert [name for name in sorted(differing) if f"{{setting}}`{name}`" not in rows] == []
