"""What the README says of results is what the recorded runs say."""

import re
from pathlib import Path

import pytest

from sastc import report
from sastc.config import RunConfig
from sastc.experiments import load_experiment
from sastc.labels import LABELS
from sastc.pages import controls
from sastc.pages.parts import difference, frame

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def text():
    return re.sub(r"\s+", " ", (ROOT / "README.md").read_text(encoding="utf-8")).replace("−", "-")


@pytest.fixture(scope="module")
def runs():
    runs = report.collect(load_experiment(ROOT / "experiments/table2.yaml", "slim"), ROOT / "results")
    return runs[(runs.student == "vgg11") & (runs.teacher == "resnet19") & (runs.timesteps == 2)]


@pytest.mark.parametrize("method", ["baseline", "kd", "feature_kd", "sastc"])
def test_table(text, runs, method):
    found = runs[runs.method == method].accuracy
    paper = report.paper_accuracy(RunConfig(dataset="cifar10", student="vgg11", teacher="resnet19", method=method))
    assert f"| {LABELS[method]} | {found.mean():.2f} ± {found.std():.2f} | {paper:.2f} |" in text
    assert f"over {len(found)} seeds" in text


@pytest.mark.parametrize("other", ["baseline", "kd", "feature_kd"])
def test_differences(text, runs, other):
    mean, half, _ = report.paired_difference(runs, "sastc", other)
    words = f"{mean:+.2f}, {mean - half:+.2f} to {mean + half:+.2f}"
    assert words in text.replace("95 % interval ", "")


def test_controls(text, runs):
    found = frame(load_experiment(ROOT / "experiments/controls.yaml", "slim"), ROOT / "results")
    found = found.assign(control=controls.names(found))
    mean, half, n = difference(found, "accuracy", "control", "learned", "uniform")
    assert f"{mean:.2f} points more than uniform weights ({n} seeds, {mean - half:+.2f} to {mean + half:+.2f})" in text
    mean, _, n = difference(found, "accuracy", "control", "learned", "cka")
    assert (n, f"in the one seed tried, {-mean:.2f} less than weights from CKA" in text) == (1, True)
