"""The bench of methods: correction, intervals and verdicts by hand, and the page on made-up runs."""

import base64
import html
import json
import math
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from browsing import closed_context, served, violations
from made_up_runs import PROVENANCE, plan, record

from companion.pages import bench, bench_methods
from companion.stats import Difference, difference
from sastc.config import METHODS, STUDENT, ConfigError, RunConfig
from sastc.experiments import load_experiment
from sastc.methods import REGISTRY
from sastc.records import write_config

ROOT = Path(__file__).parents[2]
FILE = ROOT / "experiments" / "bench.yaml"
OWN = "book/examples/own_method.py:LogitMSE"
DATA = dict(name="Digits", train_images=1437, test_images=400)


def put(results, config, accuracy, cpu=1.0, losses=(3.0, 1.0)):
    """A made-up run with its history."""
    run = record(results, config, accuracy=accuracy, last_accuracy=accuracy)
    write_config(run.path, config)
    facts = PROVENANCE | dict(data=DATA, commit="abc", dirty=False, python="3", versions=dict(torch="2"))
    (run.path / "provenance.json").write_text(json.dumps(facts))
    history = dict(epoch=[1, 2], train_loss=losses, train_cpu_seconds=[cpu, cpu], test_accuracy=[1.0, accuracy])
    pd.DataFrame(history).to_csv(run.path / "history.csv", index=False)


def slim(**changes):
    return RunConfig(**dict(dataset="cifar10", scale="slim") | changes)


ACCURACIES = {  # by seed; KD's gains by hand below
    "kd": (50.0, 51.0, 52.0),
    "twd": (60.0, 61.5, 61.0),  # +10, +10.5, +9
    "sp": (40.0, 41.5, 41.0),  # -10, -9.5, -11
    "tet": (50.0, 51.1, 51.9),  # 0, +0.1, -0.1
    "fitnet": (55.0, 48.0, 54.0),  # +5, -3, +2
    "tser": (80.0, 80.0),  # two seeds
    "hta_kl": (51.0, 52.0, 53.0),  # +1 each
}
COSTS = {"kd": 2.0, "twd": 3.0, "sp": 2.2, "tet": 1.0, "fitnet": 2.0, "tser": 4.0, "hta_kl": 2.0}


@pytest.fixture
def runs(tmp_path):
    configs = []
    for method, accuracies in ACCURACIES.items():
        for seed, accuracy in enumerate(accuracies):
            configs.append(slim(method=method, seed=seed))
            put(tmp_path, configs[-1], accuracy, COSTS[method] * (1 + seed))
    configs.append(slim(method="bkdsnn"))  # not run
    trial = dict(method="twd", validation=0.2, epochs=6)
    for weight, accuracy in ((0.06, 30.0), (0.2, 50.0), (0.6, None)):
        configs.append(slim(**trial, options=dict(teacher_weight=weight)))
        if accuracy:
            put(tmp_path, configs[-1], accuracy)
    return bench.collect(plan(*configs), tmp_path)


def test_holm_by_hand():
    # 0.01 * 3; 0.03 * 2; 0.04 * 1, which may not be less than the one before
    assert bench.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    # no value above 1; what is not tested is no member
    assert bench.holm([0.6, math.nan, 0.7]) == pytest.approx([1.0, math.nan, 1.0], nan_ok=True)
    assert bench.holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])
    assert bench.holm([]) == []


def test_p_values_by_hand():
    # differences 1, 2, 3: t = 2 / (1 / sqrt 3), and with two degrees of freedom p = 1 - t / sqrt(t^2 + 2)
    t, critical = 2 * math.sqrt(3), 4.302652729911275
    assert Difference(2.0, critical / math.sqrt(3), 3).p == pytest.approx(1 - t / math.sqrt(t**2 + 2))
    assert Difference(-2.0, critical / math.sqrt(3), 3).p == pytest.approx(1 - t / math.sqrt(t**2 + 2))
    assert Difference(critical, critical, 3).p == pytest.approx(0.05), "an interval that touches zero"
    assert math.isnan(Difference(2.0, math.nan, 3).p)
    assert math.isnan(Difference(2.0, math.nan, 1).p)


@pytest.mark.parametrize(
    ("gain", "half", "n", "corrected", "words"),
    [
        (5.0, 1.0, 5, 0.04, bench.HELPS),
        (-5.0, 1.0, 5, 0.04, bench.WORSE),
        (5.0, 1.0, 5, 0.06, bench.UNTOLD),  # its own interval leaves zero out; corrected, it does not
        (0.1, 0.3, 5, 0.5, bench.NO_HELP),  # at most 0.4
        (0.1, 0.4, 5, 0.5, bench.UNTOLD),  # up to 0.5
        (-5.0, 1.0, 5, 0.06, bench.NO_HELP),
        (9.0, 0.1, 2, 0.001, bench.TOO_FEW),
        (9.0, math.nan, 1, math.nan, bench.TOO_FEW),
        (math.nan, math.nan, 0, math.nan, bench.MISSING),
        (1.0, math.nan, 5, math.nan, bench.UNTOLD),  # equal in all seeds
    ],
)
def test_verdicts_follow_the_interval(gain, half, n, corrected, words):
    assert bench.verdict(gain, half, n, corrected) == words


def test_gains_intervals_and_costs_are_paired_by_seed(runs):
    board = bench.leaderboard(runs).set_index("method")
    gains = np.array([10, 10.5, 9])
    half = 4.302652729911275 * gains.std(ddof=1) / math.sqrt(3)
    assert board.gain["twd"] == pytest.approx(gains.mean())
    assert (board.low["twd"], board.high["twd"]) == pytest.approx((gains.mean() - half, gains.mean() + half))
    assert board.accuracy["twd"] == pytest.approx(np.mean(ACCURACIES["twd"]))
    assert board.sd["twd"] == pytest.approx(np.std(ACCURACIES["twd"], ddof=1))
    assert board.n.to_dict() == {m: len(a) for m, a in ACCURACIES.items()} | {"bkdsnn": 0}
    for method, cost in COSTS.items():  # the machine slows down with the seed, for KD as well
        names = ["cost", "cost_low", "cost_high"]
        assert list(board.loc[method, names]) == pytest.approx([cost / 2] * 3), method
    assert set(board.family) == {4}, "twd, sp, tet, fitnet: not two seeds, nor equal differences, nor KD"
    tested = board.loc[["twd", "sp", "tet", "fitnet"]]
    assert list(tested.p_holm) == pytest.approx(bench.holm(tested.p))
    wanted = dict(twd=bench.HELPS, sp=bench.WORSE, tet=bench.NO_HELP, fitnet=bench.UNTOLD, tser=bench.TOO_FEW)
    wanted |= dict(bkdsnn=bench.MISSING, hta_kl=bench.UNTOLD, kd="")
    assert board.verdict.to_dict() == wanted
    assert list(board.index)[:2] == ["tser", "twd"], "the largest gain first"
    assert board.index[-1] == "bkdsnn"


def test_the_answer_follows_the_verdicts(runs):
    board = bench.leaderboard(runs)
    case = "(Digits, VGG-11 &amp; ResNet-19, teacher at 99.0 %, T = 2, small-scale runs)"
    assert bench.answer(board) == [f"Better than KD after as many epochs: TWD {case}."]
    (line,) = bench.details(board)
    told = "Worse than KD: SP; less than 0.5 points better than KD by their intervals (uncorrected): TET; "
    assert line == f"{told}cannot be told from KD: FitNet, HTA-KL; no verdict yet: 2 of 8 methods."
    none = board.assign(verdict=board.verdict.replace(bench.HELPS, bench.UNTOLD))
    assert bench.answer(none) == [f"Better than KD after as many epochs: no method {case}."]
    both = pd.concat([runs, runs.assign(dataset="cifar100", data="CIFAR-100")], ignore_index=True)
    assert [line.rpartition(" (")[2][:9] for line in bench.details(bench.leaderboard(both))] == [
        "Digits, V",
        "CIFAR-100",
    ]


def test_kd_that_is_trained_longer_is_a_row_and_the_rival_of_what_costs_as_much(tmp_path):
    configs = []
    # costs an epoch: 2 of twd over 12 epochs are those of KD over 24; sp costs 1.5, and there is KD over 18
    for method, epochs, cpu, accuracies in (
        ("kd", 12, 1.0, (50.0, 51.0, 52.0)),
        ("kd", 18, 1.0, (52.0, 53.0, 53.5)),
        ("kd", 24, 1.0, (54.0, 55.0, 56.5)),
        ("twd", 12, 2.0, (57.0, 57.0, 58.0)),
        ("sp", 12, 1.5, (52.0, 52.0, 53.0)),
        ("semckd", 12, 3.0, (60.0, 60.0, 60.5)),
    ):
        for seed, accuracy in enumerate(accuracies):
            configs.append(slim(method=method, seed=seed, epochs=epochs))
            put(tmp_path, configs[-1], accuracy, cpu)
    runs = bench.collect(plan(*configs), tmp_path)
    board = bench.leaderboard(runs).set_index("arm")
    assert board.cost.to_dict() == pytest.approx(
        {"kd": 1.0, "kd, 18 epochs": 1.5, "kd, 24 epochs": 2.0, "twd": 2.0, "sp": 1.5, "semckd": 3.0}
    )
    assert board.gain["kd, 24 epochs"] == pytest.approx((4 + 4 + 4.5) / 3)
    assert set(board.family) == {3}, "twd, sp and semckd: KD is no method beside itself"
    assert list(board.verdict[[a for a in board.index if a.startswith("kd")]]) == ["", "", ""]
    assert board.rival.to_dict() == {
        "kd": "", "kd, 18 epochs": "", "kd, 24 epochs": "", "twd": "KD, 24 epochs", "sp": "KD, 18 epochs", "semckd": "",
    }  # fmt: skip
    gains = np.array([3, 2, 1.5])
    half = 4.302652729911275 * gains.std(ddof=1) / math.sqrt(3)
    assert (board.gain_as_long["twd"], board.half_as_long["twd"]) == pytest.approx((gains.mean(), half))
    assert board.gain_as_long["sp"] == pytest.approx(-0.5)
    (line,) = bench.answer(bench.leaderboard(runs))
    assert line.endswith("Beside KD that is trained for at least as long as they take: not told from it: TWD and SP.")
    line = bench.details(bench.leaderboard(runs))[-1]
    assert "the method takes (18 and 24 epochs): not told from it: TWD +2.17 [+0.27, +4.06], n=3, SP −0.50 [" in line, (
        "the interval alone would say better"
    )
    assert "(points, small-scale runs; corrected for 2 comparisons, Holm)" in line
    surer = bench.leaderboard(runs).assign(half_as_long=lambda b: b.half_as_long / 3)
    assert bench.answer(surer)[0].endswith("as long as they take: better: TWD; worse: SP.")
    assert "(18 and 24 epochs): better: TWD +2.17 [+1.53, +2.80], n=3; worse: SP −0.50 [" in bench.worth(surer)
    page = bench.table(board.reset_index(), runs)
    assert ">KD, 24 epochs</a>" in page
    assert "Gain over KD of its cost: over KD that is trained for at least as long" in page
    usual = runs[runs.epochs == 12]
    assert "of its cost" not in bench.table(bench.leaderboard(usual), usual), "a column that is left out"
    assert re.search(r"\+2\.17 \[.*\]<br>\(KD, 24 epochs\)", page)
    assert all(name in page for name in runs.run), "each row leads to its own runs"
    drawing = bench.chart(board.reset_index())
    dashed = [line for line in drawing.axes[0].lines if line.get_linestyle() == "--"]
    assert dashed[0].get_xydata() == pytest.approx(np.array([[1, 0], [1.5, 5.5 / 3], [2, 12.5 / 3]]))
    bench.figures.plt.close(drawing)


def test_a_run_without_kds_seed_is_no_comparison(tmp_path):
    configs = [slim(method="kd", seed=0), slim(method="twd", seed=1)]
    for config in configs:
        put(tmp_path, config, 50.0)
    board = bench.leaderboard(bench.collect(plan(*configs), tmp_path)).set_index("method")
    assert board.verdict["twd"] == bench.TOO_FEW
    assert board.pairs["twd"] == 0


@pytest.mark.parametrize("seeds", [1, 3])
def test_quick_runs_are_a_smoke_test_whatever_comes_out(tmp_path, seeds):
    configs = [RunConfig(method=m, seed=s) for m in ("kd", "twd", "tet") for s in range(seeds)]
    for i, config in enumerate(configs):
        falls = config.method != "tet"
        put(tmp_path, config, 50.0 + 7 * i + 40 * falls, losses=(3.0, 1.0) if falls else (3.0, 4.0))
    runs = bench.collect(plan(*configs), tmp_path)
    assert bench.comparisons(bench.leaderboard(runs)) == []
    (line,) = bench.answer(bench.leaderboard(runs))
    assert line.startswith("Nothing can be said yet. No comparison has been run at a scale that could tell")
    line = bench.smoke(runs)
    assert f"3 of 3 methods were trained on Digits for 10 epochs, and {2 * seeds} of {3 * seeds} runs train" in line
    assert "These do not: TET." in line
    assert "not run" in bench.smoke(runs.assign(complete=False))


def every_embedded(page, kind):
    """What each download of this kind in the page holds."""
    return [base64.b64decode(found).decode() for found in re.findall(rf"data:{kind};base64,([\w+/=]+)", page)]


def embedded(page, kind):
    """What the first of them holds."""
    return every_embedded(page, kind)[0]


def test_what_sastcs_ideas_are_worth(tmp_path):
    accuracies = {"sastc": (50.0, 51.0, 52.0), "feature_kd": (53.0, 54.5, 54.8), "semckd": (50.0, 51.2)}
    configs = [slim(method=m, seed=seed) for m, found in accuracies.items() for seed in range(len(found))]
    for config in configs:
        put(tmp_path, config, accuracies[config.method][config.seed])
    longer = slim(method="sastc", epochs=24)
    put(tmp_path, longer, 90.0)
    rows = bench.collect(plan(*configs, longer), tmp_path)
    gap = difference(rows[rows.epochs == 12], "sastc", "feature_kd")
    assert gap.mean == pytest.approx((-3 - 3.5 - 2.8) / 3)
    assert bench.ideas(rows) == [
        "What SASTC's ideas are worth here (VGG-11 &amp; ResNet-19, small-scale runs): attention over all pairs of "
        f"layers, in the place of fixed pairs (SASTC − Feature KD): {gap.words()} points, worse, n=3 seeds with one "
        "teacher."
    ]
    assert bench.ideas(rows[rows.seed < 2]) == []


def test_learning_rates_of_their_own_are_told(tmp_path):
    configs = [
        slim(method=m, seed=s, learning_rate=r) for m, r in (("sastc", 0.05), ("semckd", 0.025)) for s in (0, 1, 2)
    ]
    for config in configs:
        put(tmp_path, config, 50.0 + config.seed**2 * (config.method == "sastc"))
    (line,) = bench.ideas(bench.collect(plan(*configs), tmp_path))
    assert line.endswith("n=3 seeds with one teacher (with learning rates 0.05 and 0.025).")


def test_kd_that_still_learns_is_told(tmp_path):
    configs = [slim(method="kd", seed=s, epochs=epochs) for epochs in (12, 24) for s in (0, 1, 2)]
    configs += [slim(method="twd", seed=s) for s in (0, 1, 2)]
    for config in configs:
        put(tmp_path, config, 50.0 + config.seed + (config.epochs == 24) * (5 + 0.1 * config.seed))
    runs = bench.collect(plan(*configs), tmp_path).assign(trained=49.0)
    (line,) = bench.converged(runs)
    assert "KD has not converged (small-scale runs): it reaches 51.0 % after 12 (49.0 % on its training" in line
    assert "augmented), 56.1 % after 24. Gains" in line
    level = runs.assign(accuracy=runs.accuracy.where(runs.epochs == 12, [51.0] * 3 + [49.0, 52.0, 51.5] + [51.0] * 3))
    assert bench.converged(level) == [], "an interval that holds zero"
    assert bench.converged(runs[runs.epochs == 12]) == []
    assert bench.converged(runs[runs.seed < 2]) == [], "two seeds"
    (line,) = bench.converged(runs.drop(runs.index[(runs.seed == 0) & (runs.epochs == 24)]).pipe(more_seeds))
    assert "51.4 % after 12" in line, "of the seeds that both have"


def more_seeds(runs):
    """With another pair of KD's runs."""
    kd = runs[(runs.method == "kd") & (runs.seed == 2)]
    return pd.concat([runs, kd.assign(seed=3, accuracy=kd.accuracy - 0.9)], ignore_index=True)


def test_a_method_that_diverged_is_told_as_such(runs):
    lost = (runs.method == "fitnet") & (runs.validation == 0)
    runs = runs.assign(complete=runs.complete & ~lost, diverged=runs.diverged.mask(lost, 3.0))
    board = bench.leaderboard(runs)
    assert board.set_index("method").verdict[["fitnet", "bkdsnn"]].tolist() == [bench.DIVERGED, bench.MISSING]
    assert "diverged: FitNet" in " ".join(bench.details(board))
    page = bench.table(board, runs)
    assert ">diverged</td>" in page
    assert re.search(r"<p>Not run:</p><ul><li>[^:]*: <span[^>]*>BKDSNN</span></li></ul>", page)
    assert "runs of FitNet, 3 of 3 (small-scale runs)" in bench.unstable(runs)


def test_costs_of_two_devices_are_each_beside_kd_on_the_same(runs):
    second = (runs.seed == 2) & (runs.validation == 0)
    faster = runs.assign(device=runs.device.mask(second, "other"))
    faster.loc[second & (runs.method == "twd"), "cpu_seconds"] *= 2
    board = bench.leaderboard(faster).set_index("method")
    assert list(board.loc["twd", ["cost", "cost_low", "cost_high"]]) == pytest.approx([(2 * 1.5 + 3.0) / 3, 1.5, 3.0])


def test_training_that_breaks_down_midway_is_told(runs):
    assert bench.unstable(runs) == ""
    of_twd = (runs.method == "twd") & (runs.validation == 0)
    fell = runs.fell.mask(of_twd, 5.0).mask(of_twd & runs.seed.gt(0), 5.1).mask(runs.validation > 0, 50.0)
    said = bench.unstable(runs.assign(fell=fell))
    assert "Training breaks down midway in runs of TWD, 2 of 3 (small-scale runs): training accuracy falls by" in said
    assert "settings of the best trial" in said
    untried = runs[runs.validation == 0]
    assert "best trial" not in bench.unstable(untried.assign(fell=fell[untried.index])), "there were no trials"
    history = pd.DataFrame(dict(epoch=[1, 2, 3, 4], train_accuracy=[20.0, 40.0, 28.5, 39.0]))
    for path in runs.path[of_twd]:
        history.to_csv(Path(path) / "history.csv", index=False)
    again = bench.collect(plan(*[slim(method="twd", seed=s) for s in range(3)]), Path(path).parents[1])
    assert list(again.fell) == [11.5] * 3


def test_the_table_is_sorted_by_numbers_and_downloads_hold_them(runs):
    board = bench.leaderboard(runs)
    page = bench.table(board, runs)
    assert page.count("<tr>") == 1 + len(board[board.n > 0])
    assert re.search(r"<p>Not run:</p><ul><li>Digits, VGG-11.*: <span[^>]*>BKDSNN</span></li></ul>", page)
    rows = json.loads(embedded(page, "application/json"))
    assert [row["method"] for row in rows] == list(board.method[board.n > 0])
    assert rows[1]["gain"] == pytest.approx(board.gain.iloc[1])
    assert next(row for row in rows if row["method"] == "kd")["gain"] is None
    columns = embedded(page, "text/csv").splitlines()[0]
    assert columns.startswith("scale,dataset,student,teacher,timesteps,data,teachers,method,arm,label,weights")
    twd = next(row for row in page.split("<tr>") if "#method-twd" in row)
    assert f'data-value="{board.gain.iloc[1]}"' in twd
    assert "+9.83 [" in twd
    assert f'1.50<br><span class="seeds">{1.5:.2f}–{1.5:.2f}</span>' in twd
    assert ">helps<" in twd
    assert 'title="python -m sastc train' in page, "how to run what is not run"
    assert all(known in page for known in ('data-of="rows"', "all-runs.js", "data-filter"))


def test_a_comparison_of_which_nothing_is_run_is_not_in_the_table(runs):
    other = runs[runs.validation == 0].assign(dataset="cifar100", complete=False, data="CIFAR-100")
    both = pd.concat([runs, other], ignore_index=True)
    page = bench.table(bench.leaderboard(both), both)
    assert page.count("<table") == 1
    assert "<strong>Digits, VGG-11 &amp; ResNet-19" in page
    assert "CIFAR-100" not in page
    assert "All comparisons" not in page, "the one table is all of it"
    alone = pd.concat([runs, other.assign(complete=other.method == "kd")], ignore_index=True)
    assert "CIFAR-100" not in bench.table(bench.leaderboard(alone), alone), "KD alone is no comparison"
    assert page.count("<tr>") == 1 + sum(bench.leaderboard(runs).n > 0)


def test_every_comparison_has_a_table_of_its_own_and_one_file_has_all(runs):
    other = runs[runs.validation == 0].assign(dataset="cifar100", complete=True, data="CIFAR-100")
    both = pd.concat([runs, other], ignore_index=True)
    page = bench.table(bench.leaderboard(both), both)
    first, second = page.split('<div class="all-runs"')[1:]
    assert "<strong>Digits, VGG-11" in first
    assert "<strong>CIFAR-100, VGG-11" in second
    assert 'data-name="bench-slim-cifar10-vgg11-resnet19-2"' in first
    sets = [{row["dataset"] for row in json.loads(found)} for found in every_embedded(page, "application/json")]
    assert sets == [{"cifar10"}, {"cifar100"}, {"cifar10", "cifar100"}]


def test_a_comparison_names_its_teachers_accuracy(runs):
    taught = runs.assign(taught=np.where(runs.complete, 76.18 + runs.seed, np.nan))
    assert bench.case(bench.leaderboard(taught).iloc[0]).startswith(
        "Digits, VGG-11 & ResNet-19, teacher at 76.2 to 78.2 %, T"
    )
    one = bench.leaderboard(taught.assign(taught=taught.taught.where(taught.seed == 0)))
    assert "ResNet-19, teacher at 76.2 %, T" in bench.case(one.iloc[0])


def test_comparisons_with_a_verdict_come_first(runs):
    larger = runs[runs.validation == 0].assign(scale="quarter", data="CIFAR-10")
    larger = larger.assign(complete=larger.complete & (larger.seed == 0))
    board = bench.leaderboard(pd.concat([larger, runs], ignore_index=True))
    assert board.scale.iloc[0] == "quarter"
    rows = json.loads(every_embedded(bench.table(board, runs), "application/json")[-1])
    assert list(dict.fromkeys(row["scale"] for row in rows)) == ["slim", "quarter"], "one seed tells nothing"


def test_the_overview_is_sorted_and_fills_what_is_told(runs):
    board = bench.leaderboard(runs)
    (rows,) = bench.comparisons(board)
    drawing = bench.overview(rows)
    left, right = drawing.axes[:2]
    names = [text.get_text() for text in left.get_yticklabels()]
    known = rows[rows.gain.notna() | (rows.arm == "kd")]
    known = known.assign(gain=known.gain.fillna(0.0)).sort_values("gain")
    assert names == list(known.label), "the largest gain on top"
    marks = {names[round(line.get_ydata()[0])]: line for line in right.lines if line.get_marker() != "None"}
    told = known.set_index("label").verdict.isin([bench.HELPS, bench.WORSE, bench.NO_HELP, ""])
    assert {label: line.get_fillstyle() == "full" for label, line in marks.items()} == dict(told)
    assert [marks[r.label].get_xdata()[0] for r in known.itertuples()] == pytest.approx(list(known.cost))
    page = bench.overviews(board)
    assert page.count("<figure") == 1
    assert "hollow ones: it gives none" in page
    assert bench.overviews(bench.leaderboard(runs[runs.seed < 2])) == "", "two seeds tell nothing"


def test_the_chart_has_every_method_with_gain_and_cost(runs):
    board = bench.leaderboard(runs)
    drawing = bench.chart(board)
    marks = {c.get_label(): c for c in drawing.axes[0].containers}
    assert set(marks) == set(board.label) - {"BKDSNN"}
    line, _, (bars,) = marks["TWD"]
    assert line.get_xydata()[0] == pytest.approx([1.5, 29.5 / 3])
    (segment,) = bars.get_segments()
    row = board[board.method == "twd"].iloc[0]
    assert segment[:, 1] == pytest.approx([row.low, row.high])
    assert marks["KD"][0].get_xydata()[0] == pytest.approx([1, 0])
    bench.figures.plt.close(drawing)


def test_marks_that_stand_apart_are_named_beside_them():
    rows = pd.DataFrame(dict(cost=[1.0, 1.01, 1.02, 3.0, 2.9], gain=[0.0, 0.1, 5.0, 10.0, 10.1]))
    assert list(bench._apart(rows)) == [False, False, True, True, False], "the last would run into the one before"


def test_trials_are_apart_from_the_comparison(runs):
    (row,) = bench.trials(runs).itertuples()
    assert (row.ended, row.planned, row.best) == (2, 3, 50.0)
    assert row.setting == "nothing changed"
    assert row.found == "nothing changed: 50.00; teacher_weight = 0.06: 30.00"
    assert row.error == pytest.approx(200 * math.sqrt(0.25 / 400))
    page = bench.trials_table(runs)
    assert "2 of 3" in page
    assert "50.00 [45.00, 55.00]" in page
    assert "<td>teacher_weight = 0.06: 30.00</td>" in page
    lost = runs.assign(diverged=runs.diverged.mask(runs.validation.gt(0) & ~runs.complete, 2.0))
    assert "3 of 3" in bench.trials_table(lost)
    assert "teacher_weight = 0.06: 30.00; teacher_weight = 0.6: diverged" in bench.trials_table(lost)
    assert "planned" in bench.trials_table(runs[runs.validation == 0])
    assert "<p>2 of the 3 planned trials are recorded; a method has 3 planned.</p>" in page
    assert bench.trials_table(runs.assign(complete=False)) == (
        f"<p>0 of the 3 planned trials are recorded; a method has 3 planned.</p><p>Not tried yet: {row.label}.</p>"
    )


def test_a_best_trial_at_an_end_of_what_was_tried_is_told(runs):
    assert bench.at_an_end(runs[runs.validation == 0]) == ""
    tried = runs[runs.validation > 0]
    every = tried.assign(diverged=tried.diverged.mask(~tried.complete, 2.0))
    assert bench.at_an_end(every) == "The best trial of all 1 methods lies between others."
    low = every.assign(accuracy=every.accuracy.mask(every.teacher_weight == 0.06, 60.0))
    told = "lies at an end of the values tried for 1 of 1 methods: TWD (teacher_weight 0.06). Values beyond may"
    assert told in bench.at_an_end(low)
    two = low[low.teacher_weight < 0.5]
    assert "lies between" in bench.at_an_end(two), "of two values each is an end"


def test_the_best_trials_are_told_beside_kds_and_the_baselines(runs):
    assert bench.tried(runs) == "", "KD has none"
    first = runs[runs.validation > 0].iloc[:1]
    known = {"fitnet": 58.5, "kd": 45.5, "sastc": 58.6, "baseline": 43.8, "twd": 47.2, "sp": 48.7}
    rows = [first.assign(method=m, label=bench.LABELS[m], accuracy=a) for m, a in known.items()]
    told = bench.tried(pd.concat(rows, ignore_index=True))
    assert "SASTC 58.60 %, FitNet 58.50 %, SP 48.70 %; the best of KD 45.50 % and of the baseline 43.80 %" in told
    assert told.endswith("That is no verdict.")


def test_what_is_not_run_at_the_small_scale_is_named():
    runs = bench.collect(load_experiment(FILE, "slim"), ROOT / "results")
    rows = runs[(runs.scale == "slim") & (runs.dataset == "cifar10") & (runs.validation == 0)]
    board = bench.leaderboard(rows)
    missing = bench.table(board, rows).partition("<p>Not run:</p>")[2]
    named = {label for label in board.label if f">{html.escape(label)}</span>" in missing}
    assert named == (set(board.label[board.n == 0]) if board.n.any() else set())


def test_what_papers_report_is_a_table_of_its_own():
    rows = bench_methods.published()
    assert set(rows.method) <= set(REGISTRY)
    assert set(rows.accuracy_from) <= {"", "second hand", "released code", "abstract"}
    assert set(rows.settings_from) <= {"second hand", "released code", "abstract"}
    assert (rows.accuracy.notna() == (rows.accuracy_from != "")).all(), "a number says where it was read"
    assert not (rows.selection != "")[rows.settings_from != "released code"].any()
    page = bench_methods.published_table()
    assert page.count("<tr>") == 1 + len(rows)
    assert "second hand" in page
    assert "–: not known" in page
    assert "gain over KD" not in page
    assert "not comparable" in (ROOT / "notebooks/bench.ipynb").read_text()
    first = load_experiment(FILE)
    assert bench_methods.not_reported(first).startswith("No row: Baseline, KD, ")


def test_every_method_is_explained_by_its_file_and_the_lines_that_compute_it():
    page = bench_methods.explained(load_experiment(FILE, "quick", {"method": OWN}))
    for name, kind in REGISTRY.items():
        assert f'<dt id="method-{name}">' in page
        path, first, last = bench_methods.file_of(kind)
        lines = path.read_text().splitlines()[first - 1 : last]
        assert lines[0].startswith(f"class {kind.__name__}(")
        assert any(re.match(r"    def (losses|feature_loss|build)\(", line) for line in lines), name
        assert f"/blob/main/sastc/methods/{path.name}#L{first}-L{last}" in page
        formula = page.partition(f'id="method-{name}"')[2].partition("<dt")[0]
        assert "<code>L = " in formula, f"{name} has no formula"
    assert page.index("method-logit_mse") < page.index("method-baseline"), "one's own first"
    assert bench_methods.as_html("One ``x < 1``\nof :func:`f`.\n\n``y``") == (
        "<p>One <code>x &lt; 1</code> of <code>f</code>.</p><p><code>y</code></p>"
    )


# The experiment


@pytest.mark.parametrize(("scale", "seeds"), [("quick", 1), ("slim", 5), ("quarter", 3)])
def test_all_methods_are_planned_under_equal_conditions(scale, seeds):
    usual = RunConfig(dataset="cifar10", scale=scale).epochs if scale != "quick" else 4
    runs = [c for c in load_experiment(FILE, scale).runs if not c.validation]
    assert {c.method for c in runs if c.epochs != usual} <= {"kd"}, "which is trained longer, too"
    runs = [c for c in runs if c.epochs == usual]
    for dataset in {c.dataset for c in runs}:
        same = [c for c in runs if c.dataset == dataset]
        for method in STUDENT:
            assert len({c.seed for c in same if c.method == method}) == seeds, method
        everywhere = [n for n, f in RunConfig.fields().items() if f.metadata["scope"] != "methods" and n != "method"]
        free = {"seed", "teacher_seed", "partial_batch"}  # SASTC and SemCKD drop the last batch of all
        free |= {"learning_rate"} if scale != "quick" else set()  # that of each method's best trial
        assert {n for n in everywhere if len({getattr(c, n) for c in same}) > 1} <= free
        assert len({c.teacher_config().identity for c in same}) == seeds, "a teacher of its own for every seed"
        assert all(c.teacher_seed == c.seed for c in same)


def test_the_quarter_widths_runs_of_table_2_are_in_the_bench():
    table2 = [
        c for c in load_experiment(ROOT / "experiments" / "table2.yaml", "quarter").runs if c.dataset == "cifar10"
    ]
    assert {c.name for c in table2} < {c.name for c in load_experiment(FILE, "quarter").runs}


def test_weights_are_tried_as_often_for_every_method():
    runs = load_experiment(FILE, "slim").runs
    trials = {m: [c for c in runs if c.method == m and c.validation] for m in STUDENT}
    assert {m: len(t) for m, t in trials.items()} == dict.fromkeys(STUDENT, 7)
    assert all(c.validation == 0.2 for t in trials.values() for c in t)
    rates = {m: {c.learning_rate for c in t} for m, t in trials.items()}
    assert {m for m, tried in rates.items() if tried != {0.025, 0.05, 0.1}} == {"baseline", "tet"}, "without weights"


def test_a_method_of_ones_own_joins_the_others_and_takes_no_place():
    plain = load_experiment(FILE, "slim")
    joined = load_experiment(FILE, "slim", {"method": OWN, "alpha": 0.5})
    mine = [c for c in joined.runs if c.method == "logit_mse"]
    assert joined.joined == "logit_mse"
    assert not plain.joined
    assert [c.identity for c in joined.runs if c.method != "logit_mse"] == [c.identity for c in plain.runs]
    assert {(c.dataset, c.seed, c.alpha, c.validation) for c in mine} == {("cifar10", s, 0.5, 0) for s in range(5)}
    assert {c.method for c in load_experiment(FILE, "slim", {"method": "kd"}).runs} == {"kd"}
    assert {c.epochs for c in load_experiment(FILE, "quick", {"method": OWN, "epochs": 2}).runs} == {2}
    only = load_experiment(ROOT / "experiments" / "table2.yaml", "quick", {"method": OWN})
    assert {c.method for c in only.runs} == {"logit_mse"}, "files without joins: as any other setting"
    assert set(METHODS) < {c.method for c in load_experiment(FILE, "quick", {"student": "resnet18"}).runs}


def test_joins_is_true_or_false(tmp_path):
    (tmp_path / "own.yaml").write_text("title: x\nnotebook: bench\njoins: [kd]\n")
    with pytest.raises(ConfigError, match=r"joins=.*must be true or false"):
        load_experiment(tmp_path / "own.yaml")


# The notebook


def test_the_notebook_shows_a_method_of_ones_own_beside_recorded_ones(tmp_path):
    changes = {"method": OWN}
    for i, config in enumerate(load_experiment(FILE, "quick", changes).runs):
        put(tmp_path, config, 40.0 + i, cpu=1 + i / 10)
    output = tmp_path / "bench.ipynb"
    given = dict(results=str(tmp_path), changes=changes)
    source = ROOT / "notebooks/bench.ipynb"
    papermill.execute_notebook(source, output, given, kernel_name="python3", cwd=ROOT, progress_bar=False)
    cells = nbformat.read(output, as_version=4).cells
    page = "".join(o.get("data", {}).get("text/html", "") for c in cells for o in c.get("outputs", []))
    assert "Nothing can be said yet." in page
    assert "19 of 19 methods were trained on Digits" in page
    assert '<a href="#method-logit_mse">Logit MSE</a>' in page
    assert page.count(">nothing can be said yet</td>") == 18
    assert "own_method.py, lines" in page
    assert "What the methods' papers and released codes report" in page
    assert "method=book/examples/own_method.py:LogitMSE" in page, "the command that makes it again"


@pytest.mark.browser
def test_both_tables_are_filtered_sorted_by_their_numbers_and_downloaded(runs, browser, tmp_path):
    board, faults = bench.leaderboard(runs), []
    for folder, source in (("_static", "_ext/all-runs.js"), ("_static", "_static/custom.css")):
        (tmp_path / "site" / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "book" / source, tmp_path / "site" / folder)
    (tmp_path / "site/runs").mkdir()
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>x</title><link rel="icon" href="data:,">'
    head += "<style>:root{--pst-color-text-base:#111;--pst-color-background:#fff;--pst-color-text-muted:#555}</style>"
    head += '<link rel="stylesheet" href="../_static/custom.css"><main class="bd-article"><h1>Bench</h1>'
    page = f"{head}{bench.table(board, runs)}{bench_methods.published_table()}</main>"
    (tmp_path / "site/runs/bench.html").write_text(page)
    with served(tmp_path / "site") as base:
        page = closed_context(browser, (base,), faults, 1440).new_page()
        page.goto(f"{base}/runs/bench.html")
        ours, theirs = page.locator(".all-runs").all()
        assert (ours.locator(".filters").count(), theirs.locator(".filters").count()) == (1, 1)
        for one in (ours.locator(".table-box"), theirs.locator(".table-box")):
            one.evaluate("box => { box.style.width = '790px' }")  # what a page of the book leaves at 1440 pixels
            assert one.evaluate("box => box.scrollWidth <= box.clientWidth")
        rows = ours.locator("tbody tr:visible")
        assert rows.count() == len(shown := board[board.n > 0])
        ours.get_by_role("button", name="gain over KD").click()
        order = [row.locator("th").inner_text() for row in rows.all()]
        gains = board.dropna(subset="gain").sort_values("gain")
        assert order[: len(gains)] == list(gains.label), "minus before plus, and what is none last"
        ours.get_by_label("verdict").select_option("helps")
        assert [row.locator("th").inner_text() for row in rows.all()] == ["TWD"]
        assert ours.get_by_role("status").inner_text() == f"1 of {len(shown)} rows"
        assert theirs.locator("tbody tr:visible").count() == len(bench_methods.published())
        with page.expect_download() as download:
            ours.get_by_role("button", name="JSON").click()
        (row,) = json.loads(Path(download.value.path()).read_text())
        assert download.value.suggested_filename == "bench-slim-cifar10-vgg11-resnet19-2.json"
        assert row["gain over KD (points)"] == pytest.approx(29.5 / 3)
        theirs.get_by_role("button", name="accuracy (%), reported").click()
        reported = [row.locator("td").nth(4).inner_text() for row in theirs.locator("tbody tr:visible").all()]
        known = [float(value) for value in reported if value != "–"]
        assert known == sorted(known)
        assert reported[len(known) :] == ["–"] * (len(reported) - len(known))
        assert violations(page, "moderate", "serious", "critical") == []
        page.context.close()
    assert not faults
