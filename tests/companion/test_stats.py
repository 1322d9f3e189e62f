"""Paired differences and their intervals, by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from companion import stats
from companion.html import interval
from companion.stats import Difference, difference, family, paired


def table(**accuracies):
    """Runs of one pair: method to accuracies by seed, ``nan`` for a seed that is not run."""
    rows = [
        dict(method=method, seed=seed, accuracy=value, complete=not math.isnan(value))
        for method, values in accuracies.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_paired_difference_by_hand():
    # Differences 1, 2, 3: mean 2, standard deviation 1, t(0.975, 2) = 4.302653, so half = 4.302653 / sqrt(3).
    runs = table(sastc=[91.0, 93.0, 95.0, math.nan], kd=[90.0, 91.0, 92.0, 50.0])
    d = difference(runs, "sastc", "kd")
    assert (d.mean, d.n) == (2.0, 3)
    assert d.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_paired_difference_without_common_seeds():
    d = difference(table(sastc=[90.0], kd=[math.nan]), "sastc", "kd")
    assert d.n == 0
    assert np.isnan([d.mean, d.half]).all()
    d = difference(table(sastc=[90.0], kd=[89.0]), "sastc", "kd")
    assert (d.mean, d.n) == (1.0, 1)
    assert math.isnan(d.half)


def test_paired_difference_needs_one_run_for_each_seed():
    runs = table(sastc=[91.0, 93.0], kd=[90.0, 91.0])
    with pytest.raises(ValueError, match="method 'kd' has more than one run of seed 1"):
        difference(pd.concat([runs, runs[(runs.method == "kd") & (runs.seed == 1)]]), "sastc", "kd")
    other = pd.concat([runs, table(baseline=[80.0]), table(baseline=[70.0])])
    assert difference(other, "sastc", "kd").n == 2, "methods that are not asked for may be anything"


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((2.0, 1.0, 3), "better"),
        ((-2.0, 1.0, 3), "worse"),
        ((0.5, 1.0, 3), "not distinguishable"),
        ((1.0, 1.0, 3), "not distinguishable"),
        ((9.0, math.nan, 1), "cannot say from one seed"),
        ((9.0, 1.0, 2), "cannot say from two seeds"),
        ((math.nan, math.nan, 0), "not run"),
        ((0.28, 0.0, 3), "cannot say from equal differences"),
        ((0.28, math.nan, 3), "cannot say from equal differences"),
        ((0.0, 0.0, 3), "cannot say from equal differences"),
        ((math.nan, 1.0, 3), "cannot say from equal differences"),
    ],
)
def test_judge_says_no_more_than_the_interval_allows(numbers, words):
    assert Difference(*numbers).judgement == words


def test_two_cells_are_enough_for_a_mean_over_cells():
    of_two = stats.pooled([Difference(2.0, 0.5, 3), Difference(2.1, 0.5, 3)])
    assert (of_two.n, of_two.judgement) == (2, "better"), "each has its own seeds"
    assert Difference(2.0, 0.5, 2, "teachers").judgement == "cannot say from two teachers"


def test_small_differences_that_differ_have_an_interval():
    runs = table(kd=[70.0, 71.0], sastc=[70.01, 71.02])  # one image of 10,000 apart
    assert difference(runs, "sastc", "kd").half == pytest.approx(12.7062 * 0.005, rel=1e-4)


def test_pairs_are_matched_by_index_and_a_number_stands_for_all():
    # 0.5, 0.6, 0.7 less 1/3: mean 0.2667, deviation 0.1, half 4.302653 * 0.1 / sqrt(3)
    d = paired(pd.Series([0.5, 0.6, 0.7]), 1 / 3)
    assert (d.mean, d.half, d.n) == (pytest.approx(0.6 - 1 / 3), pytest.approx(0.4302653 / math.sqrt(3), rel=1e-6), 3)
    crossed = paired(pd.Series([1.0, 2.0, 9.0], ["a", "b", "c"]), pd.Series([5.0, 1.0], ["b", "a"]))
    assert (crossed.mean, crossed.n) == (-1.5, 2)


def test_a_difference_turns_round_and_changes_its_unit():
    d = Difference(0.72, 0.63, 3)
    assert -d == Difference(-0.72, 0.63, 3)
    assert d.times(-100) == Difference(-72.0, 63.0, 3)
    assert (d.low, d.high) == pytest.approx((0.09, 1.35))
    assert d.words() == "+0.72 [+0.09, +1.35]"
    assert Difference(-0.88, 0.35, 3).words(1) == "−0.9 [−1.2, −0.5]"
    assert Difference(1.0, math.nan, 1).words() == Difference(1.0, 0.0, 2).words() == "+1.00"


def test_a_frame_of_differences_is_written_as_numbers():
    frame = pd.DataFrame(
        dict(a=["x", "y"], difference=[Difference(1.0, 0.5, 3), Difference()], stm=[np.nan, Difference(2.0, 1.0, 2)])
    )
    flat = stats.flat(frame)
    assert list(flat) == ["a", "mean", "half", "n", "stm_mean", "stm_half", "stm_n"]
    assert list(flat.iloc[0])[:4] == ["x", 1.0, 0.5, 3]
    assert np.isnan(flat.stm_mean[0])
    assert flat.stm_n[1] == 2


def test_spread_by_hand():
    assert stats.spread(np.array([[1.0, 5.0], [3.0, 5.0]])) == pytest.approx(math.sqrt(2) / 2)  # √2 and 0
    assert math.isnan(stats.spread(np.ones((1, 2)))), "a single value has none"


def nested(rng, sizes):
    """Runs of two methods: a teacher for each size, with so many students."""
    rows, seed = [], 0
    for teacher, size in enumerate(sizes):
        luck = rng.normal()
        for _ in range(size):
            for method, gain in (("kd", 0.0), ("sastc", 1.0 + luck)):
                value = gain + rng.normal()
                rows.append(
                    dict(method=method, seed=seed, teacher_seed=teacher, data_seed=0, accuracy=value, complete=True)
                )
            seed += 1
    return pd.DataFrame(rows)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 3), (2, 5, 1, 4), (4,)])
def test_students_of_several_teachers_have_the_teacher_as_unit(sizes):
    from scipy.stats import t

    runs = nested(np.random.default_rng(len(sizes)), sizes)
    means = []  # slowly, by loops
    for teacher in range(len(sizes)):
        gaps = []
        for seed in runs.seed[runs.teacher_seed == teacher].unique():
            one, other = (
                float(runs.accuracy[(runs.seed == seed) & (runs.method == method)].iloc[0])
                for method in ("sastc", "kd")
            )
            gaps.append(one - other)
        means.append(sum(gaps) / len(gaps))
    values = means if len(sizes) > 1 else gaps
    mean = sum(values) / len(values)
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
    d = difference(runs.sample(frac=1, random_state=0), "sastc", "kd")
    assert (d.mean, d.n) == (pytest.approx(mean), len(values))
    assert d.half == pytest.approx(t.ppf(0.975, len(values) - 1) * error)
    assert d.unit == ("teachers" if len(sizes) > 1 else "seeds with one teacher")


def test_intervals_over_teachers_hold_the_truth_where_those_over_seeds_do_not():
    rng = np.random.default_rng(1)
    held = np.zeros(2)
    for _ in range(400):
        runs = nested(rng, (3, 3, 3))
        plain = difference(runs.drop(columns="teacher_seed"), "sastc", "kd")
        assert (plain.n, plain.unit) == (9, "seeds")
        held += [d.low < 1.0 < d.high for d in (difference(runs, "sastc", "kd"), plain)]
    assert held[0] / 400 > 0.925
    assert held[1] / 400 < 0.9


def test_the_same_seed_under_two_teachers_is_two_pairs_and_a_baseline_stands_beside_both():
    rows = [("kd", 0, 0, 1.0), ("kd", 0, 1, 2.0), ("sastc", 0, 0, 2.0), ("sastc", 0, 1, 5.0), ("baseline", 0, 0, 0.0)]
    names = ["method", "seed", "teacher_seed", "accuracy"]
    runs = pd.DataFrame(rows, columns=names).assign(data_seed=0, complete=True)
    assert (difference(runs, "sastc", "kd").mean, difference(runs, "sastc", "kd").n) == (2.0, 2)
    for a, b, mean in (("sastc", "baseline", 3.5), ("baseline", "sastc", -3.5)):
        d = difference(runs, a, b)
        assert (d.mean, d.n, d.unit) == (mean, 2, "teachers")
    assert difference(runs, "kd", "nothing").n == 0
    assert stats.over([difference(runs, "sastc", "kd"), Difference()]) == "n teachers"
    with pytest.raises(ValueError, match="more than one run of seed 0"):
        difference(pd.concat([runs, runs[:1]]), "sastc", "kd")


def test_a_family_is_corrected_and_a_single_difference_is_not():
    d = Difference(1.0, 0.9, 3)
    assert d.judgement == "better"
    t = 4.302653 / 0.9
    assert d.p == pytest.approx(1 - t / math.sqrt(t**2 + 2), rel=1e-5)  # two degrees of freedom
    (same,) = stats.family([d])
    assert same.judgement == "better"
    assert [e.judgement for e in stats.family([d, d, Difference(0.1, 1.0, 3)])] == ["not distinguishable"] * 3
    assert [e.judgement for e in stats.family([d, Difference(), Difference(1.0, math.nan, 1)])][:1] == ["better"]
    assert stats.family([d])[0].half == d.half


def test_mcnemar_by_hand():
    a = np.array([True, True, True, True, True, True, False, True, False])
    b = np.array([True, False, False, False, False, False, True, True, False])
    found = stats.images(a, b)
    assert found == stats.Images(5, 1)
    assert found.p == pytest.approx(2 * (1 + 6) / 2**6)  # none or one of six
    assert stats.images(b, a).p == found.p
    assert (stats.Images(0, 0).p, stats.Images(3, 3).p) == (1.0, 1.0)
    assert found + stats.Images(1, 2) == stats.Images(6, 3)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (7, 0), (10, 25), (300, 371)])
def test_mcnemar_is_an_exact_binomial_test(first, second):
    from scipy.stats import binomtest

    assert stats.Images(first, second).p == pytest.approx(binomtest(first, first + second, 0.5).pvalue)


def test_a_word_that_only_the_correction_takes_back_says_so():
    barely = Difference(1.0, 0.95, 5)
    assert interval(barely, says=True).endswith("n=5: better</span></span>")
    one, other = family([barely, Difference(0.1, 1.0, 5)])
    assert interval(one, says=True).endswith("n=5: not distinguishable once corrected (Holm)</span></span>")
    assert interval(other, says=True).endswith("n=5: not distinguishable</span></span>")
    assert interval(one).endswith("n=5</span></span>")
