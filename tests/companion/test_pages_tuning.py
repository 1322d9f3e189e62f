import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
from made_up_runs import plan, record

from companion.pages import grid, headlines, tuning
from sastc.config import RunConfig
from sastc.experiments import load_experiment
from sastc.records import run_path, write_json


def config(**changes):
    shared = dict(dataset="cifar10", scale="slim", validation=0.2)
    return RunConfig(**shared | changes)


@pytest.fixture
def rows(tmp_path):
    """Three learning rates of KD; three weights of SASTC, of which the largest is not run."""
    kd = {rate: config(method="kd", learning_rate=rate) for rate in (0.02, 0.05, 0.1)}
    sastc = {beta: config(method="sastc", beta=beta) for beta in (1.0, 10.0, 100.0)}
    accuracies = [*zip(kd.values(), (40.0, 50.0, 60.0), strict=True), (sastc[1.0], 50.0), (sastc[10.0], 51.0)]
    for c, accuracy in accuracies:
        run = record(tmp_path, c, accuracy=accuracy)
        provenance = dict(data=dict(test_images=400))
        (run.path / "provenance.json").write_text(json.dumps(provenance))
        history = pd.DataFrame(dict(epoch=[1, 2], kd_loss=[2.0, 1.0]))
        if c.method == "sastc":
            history = history.assign(feature_loss=[0.5, 0.1], gradient_kd=[1.0, 2.0], gradient_feature=[3.0, 2.0])
            history = history.assign(gradient_projectors=[4.0, 2.0], gradient_cosine=[0.5, -0.1])
        history.to_csv(run.path / "history.csv", index=False)
    return tuning.collect(plan(*kd.values(), *sastc.values()), tmp_path)


def test_what_a_run_says_of_itself(rows):
    row = rows[(rows.method == "sastc") & (rows.beta == 10)].iloc[0]
    assert row.images == 400
    assert row.error == pytest.approx(200 * math.sqrt(0.51 * 0.49 / 400))
    assert row.loss_ratio == pytest.approx(10 * 0.5 / 2)
    assert row.gradient_ratio == pytest.approx((3 / 1 + 2 / 2) / 2)
    assert row.projectors == pytest.approx((16 / 25 + 4 / 8) / 2)
    assert row.cosine == pytest.approx(0.2)
    assert rows[rows.method == "kd"].loss_ratio.isna().all()


def test_only_one_field_differs_along_a_curve(rows):
    assert list(tuning.along(rows, "kd", "learning_rate").accuracy) == [40, 50, 60]
    assert list(tuning.along(rows, "sastc", "beta").beta) == [1, 10]
    assert list(tuning.along(rows, "sastc", "learning_rate").beta) == [10]


def test_best_values_are_weighed_against_the_error_of_the_images(rows):
    kd, sastc = tuning.sentences(rows)
    error = 200 * math.sqrt((0.6 * 0.4 + 0.5 * 0.5) / 400)
    assert "best of 3 is 0.1 (60.00 %); the preset, 0.05, is 10.00 [" in kd
    assert f" [{10 - error:.2f}, {10 + error:.2f}] points lower, more than the error." in kd
    assert "SASTC, weight β of the feature loss alone: best of 2 (100 not run) is 10 (51.00 %), the preset." in sastc
    bars = [bar for axis in tuning.curves(rows).axes for container in axis.containers for bar in container[2]]
    half = 200 * math.sqrt(0.6 * 0.4 / 400)
    assert any(np.ptp(line[:, 1]) == pytest.approx(2 * half) for bar in bars for line in bar.get_segments())
    page = tuning.table(rows, "Here.")
    assert f"60.00 [{60 - half:.2f},\N{NO-BREAK SPACE}{60 + half:.2f}]" in page, "one error on the whole page"
    assert "two standard errors either way, from the number of validation images (400) alone. " in page


def test_the_table_shows_every_run_and_a_dash_for_what_is_not_run(rows):
    page = tuning.table(rows, "Ours: not run.")
    assert page.count("<tr>") == 1 + len(rows)
    assert run_path(config(method="sastc", beta=10.0), "").name in page
    assert "–" in page


def test_learning_rate_and_weight_tried_together(tmp_path):
    """Rows of learning rates, columns of β; what diverged says so. No table where one setting changes at a time."""
    tried = {(0.05, 10.0): 50.0, (0.02, 30.0): 70.0, (0.02, 100.0): None, (0.05, 30.0): 60.0, (0.1, 10.0): 40.0}
    runs = {key: config(method="sastc", learning_rate=key[0], beta=key[1]) for key in tried}
    for key, accuracy in tried.items():
        if accuracy:
            run = record(tmp_path, runs[key], accuracy=accuracy)
            (run.path / "provenance.json").write_text(json.dumps(dict(data=dict(test_images=400))))
            pd.DataFrame(dict(epoch=[1], kd_loss=[2.0])).to_csv(run.path / "history.csv", index=False)
    kd = record(tmp_path, config(method="kd"), accuracy=55.0)
    (kd.path / "provenance.json").write_text(json.dumps(dict(data=dict(test_images=400))))
    pd.DataFrame(dict(epoch=[1], kd_loss=[2.0])).to_csv(kd.path / "history.csv", index=False)
    write_json(run_path(runs[0.02, 100.0], tmp_path) / "diverged.json", dict(epoch=1, what="the loss"))
    rows = tuning.collect(plan(*runs.values(), config(method="kd")), tmp_path)
    page = tuning.rates_and_weights(rows, "Here.")
    assert '<th scope="row">SASTC</th><td>0.02</td><td></td><td><strong>70.00</strong></td><td>diverged</td>' in page
    assert '<th scope="row">SASTC</th><td>0.05</td><td>50.00</td><td>60.00</td><td></td>' in page
    assert headlines.tuned(rows) == (
        "Best of 1 to 5 trials of every method, on held-out images: SASTC 70.00 % (worst 40.00 %), KD 55.00 % (worst "
        "55.00 %); 1 of all 6 diverged (n=1 each)."
    )
    lines = {axis.get_xlabel(): axis.containers[0][0].get_ydata() for axis in tuning.curves(rows).axes}
    assert list(lines["weight β of the feature loss"]) == [50, 70], "the best of each β"
    assert list(lines["learning rate"]) == [70, 60, 40], "and of each rate"
    assert "Each point is the best" in tuning.errors(rows)
    alone = tuning.collect(plan(runs[0.05, 10.0], runs[0.05, 30.0]), tmp_path)
    assert tuning.rates_and_weights(alone, "") == ""


def test_students_with_the_best_settings_are_named(tmp_path, monkeypatch):
    shared = dict(dataset="cifar10", scale="quarter")
    trials = [RunConfig(**shared, method="sastc", validation=0.2, **kw)
              for kw in ({}, dict(beta=30.0), dict(learning_rate=0.05, beta=30.0))]  # fmt: skip
    trials += [RunConfig(**shared, method="kd", validation=0.2)]
    for trial, accuracy in zip(trials, (50.0, 55.0, 60.0, 40.0), strict=True):
        run = record(tmp_path, trial, accuracy=accuracy)
        (run.path / "provenance.json").write_text(json.dumps(dict(data=dict(test_images=400))))
        pd.DataFrame(dict(epoch=[1], kd_loss=[2.0])).to_csv(run.path / "history.csv", index=False)
    best = [RunConfig(**shared, method="sastc", learning_rate=0.05, beta=30.0, seed=seed) for seed in (0, 1)]
    others = [RunConfig(**shared, method="sastc"), RunConfig(**shared, method="kd")]
    monkeypatch.setattr(tuning, "load_experiment", lambda path, scale: plan(*best, *others))
    rows = tuning.collect(plan(*trials), tmp_path)
    assert tuning.on_all_images(rows, tmp_path) == ""
    for config, accuracy in zip([*best, others[0]], (90.0, 91.0, 70.0), strict=True):
        run = record(tmp_path, config, accuracy=accuracy)
        write_json(run.path / "provenance.json", dict(teacher=dict(run="t", accuracy=95.0)))
    assert tuning.on_all_images(rows, tmp_path) == (
        "On all images, with the settings of a method's best trial: SASTC 90.50 % (n=2); test images, last epoch. "
        "Teacher: 95.00 %. Not run yet: KD."
    )


def test_a_trial_that_diverged_is_a_result(rows):
    lost = rows.assign(diverged=[*rows.diverged[:-1], 2.0])
    assert "diverged in epoch 2" in tuning.table(lost, "Here.")
    assert "best of 2 (100 diverged) is 10" in tuning.sentences(lost)[1]
    assert "SASTC, best of 3 of 3 trials, 1 of which diverged: " in tuning.best(lost)[1]
    assert grid.not_run(lost, plan(config(method="sastc", beta=100.0))) == ""


def test_what_is_not_run_is_listed_with_its_command(rows):
    page = grid.not_run(rows, plan(*(config(method="sastc", beta=b) for b in (1.0, 100.0))))
    assert "Not run: 1 planned; their commands" in page
    assert "beta=100" in page


def test_the_pull_of_a_loss_names_what_the_method_has(rows):
    (line,) = tuning.pull(rows)
    assert "β = 1, 10, means over the epochs" in line
    assert "is 2.00 times the KD term's" in line
    assert "the two is 0.20, and 57 % of" in line
    assert "falls on projectors and attention" in line
    (line,) = tuning.pull(
        rows.assign(method=rows.method.replace("sastc", "feature_kd"), cosine=[math.nan] * 3 + [0.1, -0.2, math.nan])
    )
    assert "the two is −0.20 to 0.10" in line
    assert "falls on projectors, which" in line


def test_labels_of_a_log_axis_do_not_run_into_each_other():
    assert tuning._apart([]) == []
    assert tuning._apart([0.01, 0.0125, 0.025, 0.1, 0.15, 0.2]) == ["0.01", "", "0.025", "0.1", "", "0.2"]


def test_seeds_are_told_beside_the_bars(rows, tmp_path):
    assert "is not known" in tuning.seeds(rows, tmp_path)
    shared = dict(dataset="cifar10", scale="slim")
    for method, accuracies in dict(baseline=(40.0, 50.0, 60.0), kd=(50.0, 51.0), sastc=(50.0,)).items():
        for seed, accuracy in enumerate(accuracies):
            record(tmp_path, RunConfig(**shared, method=method, seed=seed), accuracy=accuracy)
            record(tmp_path, RunConfig(**shared, method=method, seed=seed, timesteps=3), accuracy=0.0)
    line = tuning.seeds(rows, tmp_path)
    assert "on the test images: Baseline 10.00 (n=3), KD 0.71 (n=2). A bar here reaches" in line
    assert line.endswith(f" {rows.error.mean():.2f} points either way; two such standard deviations are more than that "
                         "for Baseline.")  # fmt: skip


def test_one_setting_alone_is_told_apart_from_all_at_once(rows):
    page = tuning.findings(rows)
    assert page.index("best of all trials") < page.index("SASTC, best of 2 of 3") < page.index("One setting")
    assert page.index("One setting") < page.index("KD, learning rate alone: best of 3")
    assert "alone" not in page[: page.index("One setting")]


def test_the_effort_for_each_method_is_counted(rows):
    assert tuning.effort(rows) == (
        "Trials: 3 for KD and SASTC. Values of the learning rate: 3 for KD. Values of the weight β of the feature "
        "loss: 3 for SASTC."
    )
    fewer = tuning.effort(rows[rows.method.ne("kd") | rows.learning_rate.lt(0.1)])
    assert fewer.startswith("Trials: 2 for KD, 3 for SASTC. ")
    assert fewer.endswith(" Of more trials the best is more likely a good one.")
    assert tuning._each(dict.fromkeys(("baseline", "kd", "feature_kd", "sastc"), 3)) == "3 for every method"


def test_what_table_2_has_from_the_trials_is_told(rows, monkeypatch):
    def table2(*runs):
        monkeypatch.setattr(tuning, "load_experiment", lambda path, scale: plan(*runs))
        return tuning.used(rows)

    kd, sastc = (RunConfig(dataset="cifar10", scale="slim", method=m) for m in ("kd", "sastc"))
    assert table2(kd, sastc, kd.replace(seed=1)) == (
        "Table 2's small-scale runs have the preset of every method: learning rate 0.05 for KD and SASTC; weight β of "
        "the feature loss 10 for SASTC."
    )
    told = table2(kd.replace(learning_rate=0.1), sastc)
    assert "have the settings of every method's best trial here: learning rate 0.1 for KD, 0.05 for SASTC;" in told
    assert "have settings of their own: learning rate 0.02 for KD." in table2(kd.replace(learning_rate=0.02))
    assert table2(kd.replace(dataset="cifar100")) == ""


@pytest.mark.parametrize(("scale", "kind"), [("slim", "the preset of every method"), ("quarter", "best trial here")])
def test_table_2_has_the_settings_that_the_pages_say(scale, kind):
    rows = tuning.collect(load_experiment("experiments/tuning.yaml", scale))
    assert kind in tuning.used(rows)


def test_the_schedule_is_told_beside_the_presets(rows):
    same = tuning.schedule(rows)
    drops = "after epochs 8, 9, 10 of 12"
    assert same == f"The learning rate drops {drops} here, and {drops} with the preset."
    short = tuning.schedule(rows.assign(epochs=6))
    assert "after epochs 4, 4, 5 of 6 here, and after epochs 8, 9, 10 of 12 with" in short
    assert short.endswith("another shape.")
    for config in (RunConfig(dataset="cifar10", scale="slim", epochs=e) for e in (6, 12)):
        rates = [config.learning_rate_at(epoch) for epoch in range(config.epochs)]
        drops = [4, 4, 5] if config.epochs == 6 else [8, 9, 10]
        assert rates == pytest.approx([0.05 * 0.1 ** sum(epoch >= d for d in drops) for epoch in range(config.epochs)])


def test_trials_of_other_weights_and_of_a_triangle(tmp_path):
    shared = dict(dataset="cifar10", scale="quarter", validation=0.2, epochs=4)
    runs = {
        ("kd", 0.3): RunConfig(**shared, method="kd", kl_weight=0.3),
        ("kd", 1.0): RunConfig(**shared, method="kd"),
        ("sastc", 1.0): RunConfig(**shared, method="sastc"),
        ("sastc", 30.0): RunConfig(**shared, method="sastc", beta=30.0),
    }
    for c, accuracy in zip(runs.values(), (60.0, 50.0, 55.0, 52.0), strict=True):
        run = record(tmp_path, c, accuracy=accuracy)
        (run.path / "provenance.json").write_text(json.dumps(dict(data=dict(test_images=400))))
        pd.DataFrame(dict(epoch=[1, 2], kd_loss=[2.0, 1.0])).to_csv(run.path / "history.csv", index=False)
    rows = tuning.collect(plan(*runs.values()), tmp_path)
    assert tuning.tried(rows) == {"beta": ["sastc"], "kl_weight": ["kd"]}
    kd, sastc = tuning.best(rows)
    assert kd == "KD, best of 2 of 2 trials: weight of the KL term 0.3, the smallest tried (60.00 %)."
    assert sastc.startswith("SASTC, best of 2 of 2 trials: ")
    assert "β of the feature loss 10" in sastc
    assert '<th scope="col">weight<br>of KL</th>' in tuning.table(rows, "")
    assert len(tuning.curves(rows).axes) == 2
    assert tuning.schedule(rows) == (
        "The learning rate rises over the first 20 % of 4 epochs and falls to zero; with the preset it does so over "
        "12 epochs and all images."
    )


def test_table_2_says_that_its_beta_is_not_tuned():
    """From the recorded trials: β = 10 beside the best of five, one seed each."""
    told = tuning.beside_table2(load_experiment("experiments/table2.yaml", "slim"))
    copy = tuning.collect(load_experiment("experiments/tuning.yaml", "slim"))
    bench = load_experiment("experiments/bench.yaml", "slim")
    held_out = tuple(c for c in bench.runs if c.validation and c.method in ("sastc", "feature_kd"))
    original = tuning.collect(dataclasses.replace(bench, runs=held_out))
    for rows, data in ((copy, "CIFAR-10 (JPEG copy)"), (original, "CIFAR-10")):
        part = told.partition(f"In trials on {data} (VGG-11 &amp; ResNet-19, T = 2; ")[2].partition("In trials")[0]
        trials = rows[rows.learning_rate == 0.05].pivot(index="beta", columns="method", values="accuracy")
        for method, words in (("sastc", "SASTC"), ("feature_kd", "feature KD")):
            of = trials[method].dropna()
            gap = of.max() - of[10.0]
            assert f"{words} is {gap:.2f} [" in part
            assert f"points below its best of {len(of)} (β = {of.idxmax():g})" in part
        gaps = [trials.sastc[10.0] - trials.feature_kd[10.0], trials.sastc.max() - trials.feature_kd.max()]
        here, best = (f"{gap:+.2f}".replace("-", "−") for gap in gaps)
        assert f"SASTC minus feature KD: {here} points there with β = 10, {best} with each at its best." in part
    assert "At a quarter of the width: on all images" in told
    for other in ("quick", "quarter"):  # no trials of these networks; and settings that are the best trials'
        assert tuning.beside_table2(load_experiment("experiments/table2.yaml", other)) == ""
