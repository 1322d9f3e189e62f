"""The page on cost: which runs, what they take, and the paper's own times."""

import math
import re
from pathlib import Path

import pytest
import yaml

from companion.pages import cost
from companion.sizing import run_flops
from sastc.config import RunConfig


@pytest.fixture
def every(tmp_path):
    """Two experiments that share one run, and one that only reads theirs."""
    vgg = dict(dataset="cifar10", student="vgg11", teacher="resnet19", width=1 / 16, timesteps=2)
    first = {"title": "One", "notebook": "n", "paper": [vgg | {"method": ["baseline", "kd"]}]}
    second = {"title": "Two", "notebook": "n", "paper": [vgg | {"method": "kd", "seed": [0, 1]}]}
    for name, content in dict(a=first, b=second, c={"title": "Three", "notebook": "n", "of": ["a"]}).items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return cost.runs(tmp_path)


def test_a_run_of_two_pages_counts_once_in_all(every):
    assert list(every.title) == ["One"] * 3 + ["Two"] * 3, "one teacher, two students each"
    costs = cost.by_experiment(every, 0.5, {"card": 1e12}).set_index("title")
    kd = RunConfig(dataset="cifar10", scale="paper", width=1 / 16, method="kd")
    whole = costs.loc["all of them, each run once"]
    assert list(costs.runs) == [3, 3, 4]
    assert whole.exaflop == pytest.approx(costs.exaflop["One"] + run_flops(kd) / 1e18)
    assert whole.card == pytest.approx(whole.exaflop * 1e18 / 0.5e12 / 3600)
    assert whole.paper_runs == 3
    assert whole.paper == pytest.approx((36.77 + 2 * cost.paper_seconds(kd) / 240) * 240 / 3600)
    said = " ".join(cost.sentences(every, 0.5))
    assert "4 runs" in said
    assert cost.table(costs.reset_index(), 0.5, {"card": 1e12}).count("<tr>") == 4


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        (dict(dataset="cifar10", method="baseline"), 240 * 36.77),
        (dict(dataset="cifar10", student="wrn16_2", teacher="wrn28_4", method="sastc", timesteps=7), 240 * 306.22),
        (dict(dataset="cifar100", student="resnet18", teacher="wrn40_2", method="kd", timesteps=3), 240 * 99.79),
        (dict(dataset="cifar10", method="baseline", train_fraction=0.5), 120 * 36.77),
        (dict(dataset="imagenet", student="resnet34", teacher="resnet34", timesteps=4), 90 * 4.01 * 3600),
        (dict(dataset="cifar10", method="teacher"), math.nan),
        (dict(dataset="dvs_gesture", student="resnet18"), math.nan),
    ],
)
def test_times_of_the_paper(fields, seconds):
    assert cost.paper_seconds(RunConfig(scale="paper", **fields)) == pytest.approx(seconds, nan_ok=True)


def test_memory_says_what_fits(monkeypatch):
    plans = [dict(student="resnet18", width=1 / 16, batch_size=8, checkpoint=c) for c in ("none", "blocks")]
    sizes = cost.memory(plans)
    assert list(sizes.checkpoint) == ["none", "blocks"]
    assert sizes.peak[1] < sizes.peak[0]
    assert (sizes.weights == sizes.weights[0]).all()
    between = sizes.peak.mean()
    assert re.findall("<td>(yes|no)</td>", cost.memory_table(sizes, between)) == ["no", "yes"]


def test_memory_in_the_words_of_the_page_on_rerunning():
    """ImageNet's networks at full size, without a number in them."""
    page = (Path(__file__).parents[2] / "book" / "rerun.md").read_text(encoding="utf-8")
    ways = [
        dict(student=student, checkpoint=checkpoint)
        for student in ("resnet18", "resnet34")
        for checkpoint in ("none", "blocks")
    ]
    whole, blocks, whole34, blocks34 = cost.memory(ways).peak
    (parts,) = cost.memory([dict(student="resnet18", checkpoint="blocks", accumulate=4)]).peak
    told = (
        "needs {:.1f} GiB for a spiking ResNet-18, {:.1f} GiB with `checkpoint=blocks`, which is the preset there, and "
        "{:.1f} GiB with `accumulate=4` besides; a ResNet-34 needs {:.1f} and {:.1f} GiB."
    )
    assert told.format(whole, blocks, parts, whole34, blocks34) in page
    assert RunConfig(**cost.IMAGENET | dict(student="resnet18")).checkpoint == "blocks"
    assert blocks34 < 24e9 / 2**30, "the whole batch fits a card of 24 GB"
