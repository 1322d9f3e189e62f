import math

import numpy as np
import pandas as pd
import pytest

from sastc import report
from sastc.pages import verdicts
from sastc.pages.verdicts import Claim, Comparison

UP, DOWN, OPEN = Comparison("a", 2.0, 1.0, 3), Comparison("b", -2.0, 1.0, 3), Comparison("c", 0.5, 1.0, 3)
ONE, NONE = Comparison("d", 9.0, math.nan, 1), Comparison("e", math.nan, math.nan, 0)


@pytest.mark.parametrize(
    ("comparisons", "papers_data", "some", "expected"),
    [
        ([], True, False, ("cannot say", "not run")),
        ([NONE], True, False, ("cannot say", "not run")),
        ([UP, UP], False, False, ("cannot say at this scale", "other data")),
        ([ONE], True, False, ("cannot say", "one seed")),
        ([UP, UP, ONE, NONE], True, False, ("held", "held")),
        ([UP, OPEN], True, False, ("cannot say", "open")),
        ([UP, OPEN, DOWN], True, False, ("did not hold", "did not hold")),
        ([UP, DOWN], True, True, ("held", "held")),
        ([OPEN, DOWN], True, True, ("cannot say", "open")),
        ([DOWN, DOWN], True, True, ("did not hold", "did not hold")),
        ([Comparison("edge", 1.0, 1.0, 3)], True, False, ("cannot say", "open")),
    ],
)
def test_rules(comparisons, papers_data, some, expected):
    claim = Claim("words", "paper", "page", comparisons, papers_data, some)
    assert verdicts.verdict(claim) == expected
    assert expected[1] in verdicts.RULES


def test_a_verdict_says_its_scale():
    for comparisons, word in (([UP], "held"), ([DOWN], "did not hold"), ([OPEN], "cannot say")):
        found = Claim("words", "paper", "page", comparisons, papers_data=True, scale="slim")
        assert verdicts.verdict(found)[0] == f"{word} at this scale"


def rows(**values):
    """Runs of two pairs: method to accuracies by seed; the baseline has no teacher of its own."""
    out = [
        dict(dataset="cifar10", student="vgg11", teacher=teacher, method=method, timesteps=2, seed=seed,
             accuracy=accuracy + (teacher == "wrn28_4") * seed, complete=not math.isnan(accuracy))
        for teacher in ("resnet19", "wrn28_4")
        for method, accuracies in values.items()
        for seed, accuracy in enumerate(accuracies)
    ]  # fmt: skip
    table = pd.DataFrame(out)
    return table[(table.method != "baseline") | (table.teacher == "resnet19")]


def test_pairs_are_paired_differences_of_each_pair():
    table = rows(sastc=[90.0, 92.0, 95.0], kd=[89.0, 90.0, 91.0], baseline=[80.0, 81.0, 82.0])
    found = verdicts.pairs(table, "sastc", "kd")
    assert [c.what for c in found] == ["SASTC − KD, VGG-11 & ResNet-19, T=2", "SASTC − KD, VGG-11 & WRN-28-4, T=2"]
    mean, half, n = report.paired_difference(table[table.teacher == "resnet19"], "sastc", "kd")
    assert found[0][1:] == (mean, half, n) == (pytest.approx(7 / 3), half, 3)
    against = verdicts.pairs(table, "sastc", "kd", sign=-1)
    assert against[0].mean == -mean
    assert against[0].half == half
    base = verdicts.pairs(table, "sastc", "baseline")
    assert [c.n for c in base] == [3, 3]  # one baseline stands beside both teachers
    assert base[1].mean == pytest.approx(np.mean([10, 12, 15]))


def test_pairs_keep_settings_apart():
    quiet, loud = (rows(sastc=[90.0, 91.0], kd=[80.0, v]).assign(label_noise=p) for p, v in ((0.2, 80.0), (0.5, 95.0)))
    found = verdicts.pairs(pd.concat([quiet, loud]), "sastc", "kd", by=("label_noise",))
    assert [round(c.mean, 6) for c in found] == [10.5, 10.5, 3.0, 3.0]
    assert "label noise 0.5" in found[-1].what


def test_few_steps_against_many():
    few = pd.DataFrame(dict(method="sastc", timesteps=2, student="vgg11", seed=[0, 1], energy_uj=[1.0, 2.0]))
    many = pd.DataFrame(dict(method="kd", timesteps=7, student="vgg11", seed=[0, 1], energy_uj=[5.0, 8.0]))
    (found,) = verdicts.across_steps(pd.concat([few, many]), "energy_uj", -1)
    assert (found.mean, found.n) == (5.0, 2)


def test_every_claim_has_the_papers_evidence_and_no_verdict_without_runs(tmp_path):
    from sastc.experiments import load_experiment

    plan = load_experiment(report.ROOT / "experiments" / "verdicts.yaml", "quick")
    found = verdicts.claims(plan, {}, tmp_path)
    assert len(found) >= 20
    assert all(claim.words and claim.paper for claim in found)
    assert {verdicts.verdict(claim) for claim in found} == {("cannot say", "not run")}
    page = verdicts.verdicts_table(found)
    assert page.count("no run") >= len(found)
    assert "38 of 39 cells" in page
    assert verdicts.summary(found) == f"{len(found)} claims: {len(found)} cannot say."
