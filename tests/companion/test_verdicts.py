import base64
import dataclasses
import io
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from scipy.special import stdtrit

from companion import report
from companion.pages import verdicts
from companion.pages.verdicts import Claim, Comparison
from companion.stats import Difference, difference, widening

NUMBERS = [(2.0, 1.0, 3), (-2.0, 1.0, 3), (0.5, 1.0, 3), (9.0, math.nan, 1), (), (4.7, 1.0, 3), (-4.7, 1.0, 3)]
UP, DOWN, OPEN, ONE, NONE, FAR_UP, FAR_DOWN = (Comparison(str(i), Difference(*d)) for i, d in enumerate(NUMBERS))
EDGE, SAME = Comparison("edge", Difference(1.0, 1.0, 3)), Comparison("same", Difference(2.0, math.nan, 3))


@pytest.mark.parametrize(
    ("comparisons", "papers_data", "some", "expected"),
    [
        ([], True, False, ("open", "not run")),
        ([NONE], True, False, ("open", "not run")),
        ([UP, UP], False, False, ("open", "other data")),
        ([ONE], True, False, ("open", "too few intervals")),
        ([SAME], True, False, ("open", "too few intervals")),
        ([UP, UP, ONE, NONE], True, False, ("held", "held")),
        ([UP, OPEN], True, False, ("open", "undecided")),
        ([UP, OPEN, DOWN], True, False, ("did not hold", "did not hold")),
        ([UP, DOWN], True, True, ("held", "held")),
        ([OPEN, DOWN], True, True, ("open", "undecided")),
        ([DOWN, DOWN], True, True, ("did not hold", "did not hold")),
        ([EDGE], True, False, ("open", "undecided")),
        # one interval among 20 has to be 4.6 times as far from zero (see below); where all agree, none has to be
        ([UP, *[OPEN] * 19], True, True, ("open", "undecided")),
        ([DOWN, *[UP] * 19], True, False, ("open", "undecided")),
        ([FAR_UP, *[OPEN] * 19], True, True, ("held", "held")),
        ([FAR_DOWN, *[UP] * 19], True, False, ("did not hold", "did not hold")),
        ([UP] * 20, True, False, ("held", "held")),
        ([DOWN] * 20, True, True, ("did not hold", "did not hold")),
    ],
)
def test_rules(comparisons, papers_data, some, expected):
    claim = Claim("words", "paper", "page", comparisons, papers_data, some)
    assert verdicts.verdict(claim) == expected
    assert expected[1] in verdicts.RULES


def test_a_verdict_says_its_scale():
    for comparisons, word in (([UP], "held here"), ([DOWN], "did not hold here"), ([OPEN], "open")):
        found = Claim("words", "paper", "page", comparisons, papers_data=True, scale="slim")
        assert verdicts.verdict(found)[0] == word


def test_a_claim_about_many_waits_for_them():
    found = Claim("words", "paper", "page", [UP, ONE, NONE], papers_data=True, least=2)
    assert verdicts.verdict(found) == ("open", "too few intervals")
    assert verdicts.verdict(dataclasses.replace(found, comparisons=[UP, UP, ONE])) == ("held", "held")


@pytest.mark.parametrize("m", [1, 2, 20, 39])
def test_intervals_are_widened_by_the_quantiles_ratio(m):
    p = 1 - 0.05 / (2 * m)
    t = {
        2: lambda q: math.tan(math.pi * (q - 0.5)),
        3: lambda q: (2 * q - 1) / math.sqrt(2 * q * (1 - q)),
    }  # closed forms
    for n, quantile in t.items():
        assert widening(n, m) == pytest.approx(quantile(p) / quantile(0.975), rel=1e-6)
    assert widening(3, 20) == pytest.approx(19.9625 / 4.302653, rel=1e-5)


@pytest.mark.parametrize(("some", "cells", "wrong"), [(True, 20, "held"), (False, 39, "did not hold")])
def test_chance_gives_a_verdict_no_more_often_than_the_page_says(some, cells, wrong):
    draws = np.random.default_rng(0).normal(size=(2000, cells, 3))  # no true effect, three seeds
    halves = stdtrit(2, 0.975) * draws.std(-1, ddof=1) / math.sqrt(3)
    said = [
        verdicts.verdict(
            Claim("", "", "", [Comparison("", Difference(*c, 3)) for c in zip(m, h, strict=True)], True, some)
        )[0]
        for m, h in zip(draws.mean(-1), halves, strict=True)
    ]
    assert said.count(wrong) + said.count("open") == len(said)
    assert 0.015 < said.count(wrong) / len(said) < 0.035  # 2.5 %; with intervals as they are 39 and 63 %


def test_what_was_judged_stands_beside_the_papers_number():
    one = Claim("words", "paper", "", [UP, ONE, NONE], True, printed=39)
    assert verdicts.coverage(one) == ["1 of 1 interval above zero", "the paper: 39 comparisons"]
    several = dataclasses.replace(one, comparisons=[OPEN, UP], printed=0)
    assert verdicts.coverage(several) == ["1 of 2 intervals above zero", "the paper: no comparisons"]
    assert verdicts.coverage(dataclasses.replace(one, comparisons=[ONE])) == ["too few intervals"]
    assert verdicts.coverage(dataclasses.replace(one, comparisons=[OPEN, OPEN], printed=1)) == [
        "all 2 intervals include zero",
        "the paper: 1 comparison",
    ]
    assert verdicts.reason(dataclasses.replace(one, comparisons=[UP, DOWN, OPEN])) == (
        "1 of 3 intervals above zero, 1 below"
    )
    assert verdicts.said(one) == (
        '<span class="verdict held"><span aria-hidden="true">✓</span> held</span><br>'
        '<span class="seeds">1 of 1 interval above zero</span><br><span class="seeds">the paper: 39 comparisons</span>'
    )
    assert verdicts.mark(several, why=True) == (
        '<span class="verdict open"><span aria-hidden="true">?</span> open: 1 of 2 intervals above zero</span>'
    )
    (link,) = re.findall(r'base64,([^"]+)"', verdicts.verdicts_table([several]))
    widened = pd.read_csv(io.BytesIO(base64.b64decode(link))).half_widened
    assert list(widened) == pytest.approx([widening(3, 2)] * 2)
    assert verdicts.summary([dataclasses.replace(one, comparisons=[NONE]), one, several, one]) == (
        "Of 4 claims of the paper, 2 held, 2 open (1 with intervals that include zero or disagree, 1 not run)."
    )


def test_decided_claims_stand_first_and_every_line_has_its_unit():
    kinds = ([OPEN], [NONE], [DOWN], [UP])
    found = [Claim(f"claim {i}", "p", "", c, True, unit="miles") for i, c in enumerate(kinds)]
    page = verdicts.verdicts_table(found)
    assert [int(n) for n in re.findall(r"claim (\d)<br>", page)] == [3, 2, 0, 1]
    two = verdicts.ours(dataclasses.replace(found[0], comparisons=[UP, DOWN]))
    assert two.count("miles") == 2
    assert (
        '<span class="ours">+2.00</span> [+1.00,\N{NO-BREAK SPACE}+3.00] miles <span class="seeds">n=3</span></span>'
        in two
    )


def test_what_all_comparisons_share_is_said_once():
    names = [f"SASTC − KD, VGG-11 & ResNet-19, T=2, label noise {p}" for p in (0.2, 0.5)]
    assert verdicts.in_common(names) == ("SASTC − KD, VGG-11 & ResNet-19, T=2", ["label noise 0.2", "label noise 0.5"])
    assert verdicts.in_common(names[:1]) == (names[0], [""])
    one, other = (Claim("", "", "", [UP], source=s) for s in ("digits, quick", "events, quick"))
    for claims, times in (([one, one], 1), ([one, other, one], 2)):
        assert verdicts.verdicts_table(claims).count("digits, quick") == times, "in the caption if it is one for all"
    shown = verdicts.ours(Claim("", "", "", [Comparison(name, UP.difference) for name in names]))
    assert shown.count("SASTC − KD") == 1
    assert "T=2<br>label\N{NO-BREAK SPACE}noise\N{NO-BREAK SPACE}0.2: " in shown


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
    d = difference(table[table.teacher == "resnet19"], "sastc", "kd")
    assert (found[0].difference, d.mean, d.n) == (d, pytest.approx(7 / 3), 3)
    against = verdicts.pairs(table, "sastc", "kd", sign=-1)
    assert against[0].difference == -d
    base = verdicts.pairs(table, "sastc", "baseline")
    assert [d.n for _, d in base] == [3, 3]  # one baseline stands beside both teachers
    assert base[1].difference.mean == pytest.approx(np.mean([10, 12, 15]))


def test_pairs_keep_settings_apart():
    quiet, loud = (rows(sastc=[90.0, 91.0], kd=[80.0, v]).assign(label_noise=p) for p, v in ((0.2, 80.0), (0.5, 95.0)))
    found = verdicts.pairs(pd.concat([quiet, loud]), "sastc", "kd", by=("label_noise",))
    assert [round(d.mean, 6) for _, d in found] == [10.5, 10.5, 3.0, 3.0]
    assert "label noise 0.5" in found[-1].what


def test_few_images_are_fewer_than_all_and_teachers_stand_apart():
    students = [
        dict(dataset="cifar10", student="vgg11", teacher="" if method == "baseline" else "resnet19", method=method,
             timesteps=2, seed=seed, train_fraction=part, subset_teacher=teacher, accuracy=value + seed, complete=True)
        for part, teacher, method, value in (
            (0.25, "same_subset", "kd", 50.0), (0.25, "same_subset", "sastc", 51.0),
            (0.25, "full", "kd", 60.0), (0.25, "full", "sastc", 67.0), (0.25, "same_subset", "baseline", 40.0),
            (1.0, "same_subset", "kd", 70.0), (1.0, "same_subset", "sastc", 90.0),
        )
        for seed in (0, 1)
    ]  # fmt: skip
    found = verdicts._few_images(pd.DataFrame(students))
    assert [(d.mean, d.n) for _, d in found] == [(1.0, 2), (7.0, 2)]
    assert found[1].what.endswith("train fraction 0.25, subset teacher full")
    base = verdicts.pairs(pd.DataFrame(students), "sastc", "baseline", by=("train_fraction", "subset_teacher"))
    assert [(d.mean, d.n) for _, d in base][:2] == [(11.0, 2), (27.0, 2)], "a baseline has no teacher"


def test_betas_of_two_datasets_are_kept_apart():
    students = [
        dict(dataset=dataset, student="vgg11", method=method, beta=beta, seed=seed, accuracy=value, complete=True)
        for dataset, method, beta, value in (
            ("cifar10", "kd", 0.0, 90.0), ("cifar10", "sastc", 100.0, 92.0),
            ("cifar100", "kd", 0.0, 70.0), ("cifar100", "sastc", 100.0, 71.0),
        )
        for seed in (0, 1)
    ]  # fmt: skip
    assert [(d.mean, d.n) for _, d in verdicts._betas(pd.DataFrame(students))] == [(2.0, 2), (1.0, 2)]


def test_few_steps_against_many():
    few = pd.DataFrame(dict(method="sastc", timesteps=2, student="vgg11", seed=[0, 1], energy_uj=[1.0, 2.0]))
    many = pd.DataFrame(dict(method="kd", timesteps=7, student="vgg11", seed=[0, 1], energy_uj=[5.0, 8.0]))
    both = pd.concat([few, many]).assign(teacher="resnet19")
    (found,) = verdicts.across_steps(both, "energy_uj", -1, ["kd"])
    assert (found.difference.mean, found.difference.n) == (5.0, 2)
    assert found.what == "KD at T=7 − SASTC at T=2, VGG-11 & ResNet-19", "the difference that is shown"
    (other_way,) = verdicts.across_steps(both, "energy_uj", 1, ["kd"])
    assert (other_way.what[:11], other_way.difference.mean) == ("SASTC at T=", -5.0)
    assert verdicts.across_steps(both, "energy_uj", -1)[0].difference.n == 0, "there is no baseline"
    other = both.assign(teacher="wrn28_4", energy_uj=both.energy_uj + both.timesteps)
    base = many.assign(method="baseline", teacher="")
    found = verdicts.across_steps(pd.concat([both, other, base]), "energy_uj", -1, ["kd", "baseline"])
    assert [(d.mean, d.n) for _, d in found] == [(5.0, 2), (10.0, 2), (5.0, 2), (3.0, 2)], "each with its own teacher"


def test_seconds_are_the_cpus_where_it_trains(tmp_path):
    for name, (device, history) in dict(
        a=("cpu", dict(train_seconds=[9.0, 9.0], train_cpu_seconds=[1.0, 2.0])),
        b=("cuda", dict(train_seconds=[3.0, 5.0], train_cpu_seconds=[1.0, 2.0])),
        c=("cpu", dict(train_seconds=[9.0, 9.0])),  # of an older version
    ).items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "provenance.json").write_text(json.dumps(dict(device_type=device)))
        pd.DataFrame(history).to_csv(tmp_path / name / "history.csv", index=False)
    runs = pd.DataFrame(dict(path=[tmp_path / name for name in "abc"]))
    assert list(verdicts._seconds(runs).seconds[:2]) == [1.5, 4.0]
    assert math.isnan(verdicts._seconds(runs).seconds[2])


def test_every_claim_has_the_papers_evidence_and_no_verdict_without_runs(tmp_path):
    from sastc.experiments import load_experiment

    plan = load_experiment(report.ROOT / "experiments" / "verdicts.yaml", "quick")
    found = verdicts.claims(plan, {}, tmp_path)
    assert len(found) >= 20
    assert all(claim.words and claim.paper for claim in found)
    assert {verdicts.verdict(claim) for claim in found} == {("open", "not run")}
    page = verdicts.verdicts_table(found)
    assert page.count("no run") >= len(found)
    assert "38 of 39 cells" in page
    assert verdicts.summary(found) == f"Of {len(found)} claims of the paper, {len(found)} open ({len(found)} not run)."
    least = {claim.words: claim.least for claim in found if claim.least > 1}
    assert sorted(least.values()) == [2, 4, 4], "two β; two batch sizes, each beside two methods; four replacements"
    printed = {claim.words: claim.printed for claim in found}
    assert printed["SASTC is more accurate than KD on CIFAR"] == 39
    assert printed["SASTC is more accurate than KD with few images"] == 3, "all images are Table 2's"
    assert printed["SASTC is more accurate than KD for nearly every β"] == 30
    assert printed["Some single pairs of layers are worse than KD (negative regularisation)"] == 48
