"""What the README says of results is what the recorded runs say."""

import json
import re
import statistics
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import stdtrit

from companion import readme, report
from companion.pages import bench, controls
from companion.pages.parts import frame
from companion.stats import Difference, difference
from sastc.config import RunConfig
from sastc.experiments import load_experiment

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_has_what_the_records_say():
    assert readme.written(TEXT) == TEXT, "python -m companion.readme writes it anew"


def accuracies(**changes):
    """Seed to accuracy of the slim runs of these settings, read from their files alone."""
    found = {}
    for path in (ROOT / "results/slim").glob("*/metrics.json"):
        config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
        at = dict(dataset="cifar10", student="vgg11", timesteps=2, train_fraction=0.2, validation=0.0, epochs=12)
        at |= dict(attention="learned", detach_sim=False, target_norm="none") | changes
        defaults = {name: field.default for name, field in RunConfig.fields().items()}
        if all(config.get(name, defaults.get(name)) == value for name, value in at.items()):
            found[config.get("seed", 0)] = json.loads(path.read_text(encoding="utf-8"))["accuracy"]
    return found


@pytest.mark.parametrize(("label", "method"), [("SASTC", "sastc"), ("Feature KD", "feature_kd"), ("FitNet", "fitnet")])
def test_a_row_of_the_table_by_hand(label, method):
    ours, kd = accuracies(method=method), accuracies(method="kd")
    gaps = np.array([ours[seed] - kd[seed] for seed in sorted(ours)])
    half = stdtrit(len(gaps) - 1, 0.975) * gaps.std(ddof=1) / len(gaps) ** 0.5
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| {label} |")).split(" | ")
    assert row[1] == f"{statistics.mean(ours.values()):.2f} ± {statistics.stdev(ours.values()):.2f}"
    assert row[2] == str(len(ours))
    found = [float(n.replace("−", "-")) for n in re.findall(r"[+−][\d.]+", row[3])]
    assert found == pytest.approx([gaps.mean(), gaps.mean() - half, gaps.mean() + half], abs=0.006)


@pytest.fixture(scope="module")
def runs():
    return bench.collect(load_experiment(ROOT / "experiments/bench.yaml", "slim")).query("scale == 'slim'")


def test_what_it_says_in_fixed_words_is_true():
    for scale, width in (("slim", 0.125), ("quarter", 0.25)):
        known = {
            (run.config.width, run.config.precision)
            for run in report.recorded(readme._plan("table2", scale).runs)
            if run
        }
        assert known == {(width, "bf16")}, "an eighth of the channels, a quarter of the width, bf16"
    plan = load_experiment(ROOT / "experiments/bench.yaml", "slim")
    shares = {c.train_fraction * 50_000 for c in plan.runs if not c.validation}
    assert (shares, {c.teacher_width for c in plan.runs}) == ({10_000}, {0.0}), "10,000 images; teachers as narrow"
    trials = Counter(c.method for c in plan.runs if c.validation)
    assert set(trials.values()) == {7}, "the best of seven settings"
    assert len(trials) == len({c.method for c in plan.runs})
    done = [path.parent.name for path in (ROOT / "results").glob("*/*/metrics.json")]
    assert not [name for name in done if "cifar100" in name], "not run yet: CIFAR-100"
    assert not any(report.recorded(readme._plan("table2", "paper").runs)), "not run yet: the paper's scale"


def test_its_first_sentence_follows_the_verdicts(runs):
    main = runs[runs.validation == 0]
    (rows,) = bench.comparisons(bench.leaderboard(runs))
    same = {name: Difference(1.0, 2.0, 5) for name in controls.REPLACED}
    mine = rows.method == "sastc"
    worse = readme.lead(rows.assign(verdict=rows.verdict.mask(mine, bench.WORSE)), main, same)
    assert "SASTC is worse than KD after as many epochs" in worse
    assert "Uniform weights in the place of its learned attention are not told from it." in worse
    open_ = rows.assign(verdict=rows.verdict.mask(mine, bench.UNTOLD), half_as_long=rows.half_as_long.mask(mine, 99.0))
    told = readme.lead(open_, main, same | {"uniform": Difference(-1.0, 0.5, 5)})
    assert "SASTC is not told from KD after as many epochs" in told
    assert "and not told from KD that is trained for 36 epochs (" in told
    assert "attention give 1.00 points less." in told


def test_every_pair_of_the_quarter_width_with_three_seeds_has_a_sentence(monkeypatch):
    known = frame(readme._plan("table2", "quarter"))
    ten = known[known.dataset == "cifar10"]
    said = readme.larger(ten)
    for other in ("baseline", "kd", "feature_kd"):
        assert f"{difference(ten, 'sastc', other).words()} points, n=3)" in said
    two = ten.assign(complete=ten.complete & ((ten.method != "baseline") | (ten.seed < 2)))
    assert readme.larger(two) == "", "two seeds of one method"
    more = ten.assign(dataset="cifar100", data="CIFAR-100", teacher="resnet32x4", accuracy=ten.accuracy + ten.seed)
    real = readme.frame

    def both(plan, results):
        found = real(plan, results)
        quarter = plan.scale == "quarter" and plan.name == "table2"
        return pd.concat([ten, more], ignore_index=True) if quarter else found

    monkeypatch.setattr(readme, "frame", both)
    text = " ".join(readme.section().split())
    assert text.count("(95 % intervals, not corrected for their number.)") == 1
    assert "On CIFAR-100, VGG-11 of a quarter of the width" in text
    assert "| VGG-11 & ResNet-32x4 | 2 | CIFAR-100, quarter-width, tuned on CIFAR-10 |" in text


def test_a_run_whose_attention_ends_elsewhere_is_counted():
    config = next(c for c in load_experiment(ROOT / "experiments/table2.yaml", "slim").runs if c.method == "sastc")
    (run,) = report.recorded([config])
    assert readme.saturated(run)

    attention = np.full_like(run.measures["attention"], 1 / 3)
    flat = SimpleNamespace(config=run.config, measures=dict(run.measures, attention=attention))
    assert not readme.saturated(flat)


def test_replacements_are_told_as_they_are_judged():
    known = frame(load_experiment(ROOT / "experiments/controls.yaml", "slim"))
    changes = controls.changes_of_accuracy(known)
    words = readme.attention_words(changes)
    for control in controls.REPLACED:
        name, said = controls.WORDS.get(control, control), words.partition("Corrected for their number (Holm): ")[2]
        kind = {"better": "more", "worse": "less", "not distinguishable": "not"}[changes[control].judgement]
        assert re.search(rf"{kind} [a-z]+: [^;.]*{name}", said), control
