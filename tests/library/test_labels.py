"""Titles of runs."""

from collections import Counter

import pytest

from sastc.config import SCALES, RunConfig
from sastc.experiments import load_experiment
from sastc.labels import title_of


def test_a_title_names_what_is_not_the_preset():
    slim = dict(dataset="cifar10", scale="slim")
    assert title_of(RunConfig(**slim)) == "VGG-11 & ResNet-19, SASTC, T=2, seed 0 (CIFAR-10, small scale)"
    changed = RunConfig(**slim, attention="cka", beta=3.0, detach_sim=True, milestones=(0.5, 2 / 3))
    words = "milestones=[0.5, 0.6667], detach_sim=true, attention=cka, beta=3"
    title = title_of(changed, "a copy")
    assert title.startswith("VGG-11 & ResNet-19, SASTC, T=2, seed 0, ")
    assert title.endswith(" (a copy, small scale)")
    assert sorted(title.partition("seed 0, ")[2].removesuffix(" (a copy, small scale)").split(", ")) == sorted(
        words.split(", ")
    )
    assert "batch_size=64 (" in title_of(RunConfig(**slim, batch_size=64)), "mlp_dim follows it, as the preset has it"
    assert title_of(RunConfig(**slim, method="kd", beta=3.0)) == title_of(RunConfig(**slim, method="kd")), "KD has no β"
    assert title_of(RunConfig(method="teacher")) == "ResNet-19, teacher, seed 0 (Digits, smoke test)"
    assert title_of(RunConfig(method="teacher", dataset="digits_dvs", timesteps=4)).startswith(
        "ResNet-19, teacher, T=4,"
    )


@pytest.mark.parametrize("scale", SCALES)
def test_no_two_planned_runs_have_one_title(request, scale):
    runs = {}
    for path in (request.config.rootpath / "experiments").glob("*.yaml"):
        plan = load_experiment(path, scale)
        runs |= {config.identity: config for config in (*plan.teachers, *plan.runs)}
    assert len(runs) > (20 if scale == "quarter" else 100)
    assert [title for title, n in Counter(map(title_of, runs.values())).items() if n > 1] == []
