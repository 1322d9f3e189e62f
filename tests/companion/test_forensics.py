import math
from fractions import Fraction

import pandas as pd
import pytest

from companion.pages import forensics, forensics_costs, forensics_digits
from companion.pages.parts import paper


def binomial_tail(hits, n, p):
    """P(X >= hits) by exact sums."""
    p = Fraction(p)
    return float(sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(hits, n + 1)))


def test_grid_is_that_of_2500_images():
    values = pd.Series([100 * k / 2500 for k in range(2501)]).round(2)
    assert forensics_digits.on_grid(values).all()
    others = pd.Series([75.41, 75.42, 75.43, 93.55, 0.01])
    assert not forensics_digits.on_grid(others).any()
    assert forensics_digits.on_grid(others, images=10_000).all()


def test_grid_shares_are_those_counted_by_hand():
    rows = forensics_digits.grid_shares().set_index("group")
    hits = {name: (row["multiples"], row["values"]) for name, row in rows.iterrows()}
    assert hits["Table 2: baseline, KD, SASTC"] == (79, 93)
    assert hits["of these, all others"] == (74, 75)
    assert hits["Table 2: feature KD, announced as an average"] == (25, 39)
    assert hits["batch-size table"] == (15, 15)
    for row in rows.itertuples():
        n, k = int(rows.loc[row.Index, "values"]), int(row.multiples)
        assert row.p_if_10000_images == pytest.approx(binomial_tail(k, n, Fraction(1, 4)), rel=1e-9)
        assert row.p_if_mean_of_three == pytest.approx(binomial_tail(k, n, Fraction(1, 3)), rel=1e-9)


def test_means_of_three_trials_are_on_the_grid_in_a_third_of_cases():
    means = pd.Series([round(100 * total / 2500 / 3, 2) for total in range(5000, 7500)])
    assert forensics_digits.on_grid(means).mean() == pytest.approx(1 / 3, abs=0.002)


def test_standard_error_is_the_binomial_one():
    assert forensics_digits.standard_error(76.0, 2500) == pytest.approx(100 * math.sqrt(0.76 * 0.24 / 2500))
    assert forensics_digits.standard_error(76.0, 2500) == pytest.approx(0.854, abs=5e-4)


def test_gains_by_loops():
    rows = forensics_digits.gains_beside_errors().set_index("against")
    table = {
        (r.dataset, r.student, r.teacher, r.method, r.timesteps): r.accuracy
        for r in paper("cifar_accuracy").itertuples()
    }
    above = beyond = cells = 0
    for (dataset, student, teacher, method, steps), ours in table.items():
        if method == "sastc":
            kd = table[dataset, student, teacher, "kd", steps]
            cells, above = cells + 1, above + (ours > kd)
            error = math.sqrt(ours * (100 - ours) / 10_000 + kd * (100 - kd) / 10_000)
            beyond += ours - kd > 1.96 * error
    kd = rows.loc["KD"]
    assert (kd.cells, kd.above, kd.beyond_1_96_errors_on_10000) == (cells, above, beyond) == (39, 38, 24)
    assert kd.p_of_signs == pytest.approx(40 / 2**39, rel=1e-9)


def test_claimed_numbers():
    table = forensics.claimed_numbers().set_index("statement")
    wrong = set(table[~table.agree].index)
    assert len(table) == 21
    assert wrong == {
        "SASTC over the baseline, ResNet-18 & ResNet-32x4, T=2",
        "combinations of student and teacher in Table 2",
        "SASTC over STBP-tdBn, CIFAR-100, least",
        "SASTC over STBP-tdBn, CIFAR-100, most",
        "SASTC over TET, CIFAR-100, least",
        "accuracy on CIFAR-100, T=2",
    }
    assert table.from_the_tables["SASTC over STBP-tdBn, CIFAR-100, least"] == pytest.approx(80.24 - 70.86)
    lower = forensics.claimed_numbers(forensics.tables().with_headline(79.40))
    assert list(lower[~lower.agree].statement) == [
        "combinations of student and teacher in Table 2",
        "SASTC over STBP-tdBn, CIFAR-100, least",
    ]
    assert "4 of the 6" in forensics.claimed_numbers_sentence()


@pytest.mark.parametrize(
    ("printed", "computed", "agree"),
    [("4.72", 4.7249, True), ("4.72", 4.7251, False), ("12", 11.6883, True), ("12", 11.4, False), ("0.18", 0.18, True)],
)
def test_a_number_agrees_if_it_rounds_to_the_printed_one(printed, computed, agree):
    assert forensics.agrees(printed, computed) is agree


def test_counterexamples_known_from_the_tables():
    table = forensics.counterexamples().set_index("statement")
    found = {name: (row.against, row.cells) for name, row in table.iterrows()}
    assert found["Table 2: SASTC is above Feature KD"] == (4, 39)
    assert found["Table 2: SASTC is above KD"] == (1, 39)
    assert table.which["Table 2: SASTC is above KD"] == "ResNet-18 & WRN-40-2 (CIFAR-100), T=7"
    assert found["Table 2: KD is above the baseline"] == (3, 39)
    assert table.which["Table 7: SASTC is above its ANN teacher under noise"] == "10%"
    assert table.which["Table 4: every SASTC row is above all others (CIFAR-10)"] == "TKS, ResNet-19, T=4"
    assert found["energy table: at equal T SASTC needs the least"] == (3, 3)
    assert found["few-shot: the gain over KD grows as images get fewer"] == (0, 3)
    assert table.stated_by["Table 4: the best SASTC row is above all others (ImageNet)"] == "our question"
    assert forensics.counterexamples_sentence() == (
        "Of 14 statements of the paper about many cells, 9 hold in every cell. The other 5 have 12 exceptions among "
        "116 cells."
    )


def test_disagreements_known_from_the_tables():
    table = forensics.disagreements().set_index("cell")
    assert table.spread.iloc[0] == pytest.approx(73.24 - 69.76)
    values = table["values"]["VGG-11 & ResNet-32x4 (CIFAR-100), SASTC, T=3"]
    assert all(v in values for v in ("76.80", "77.08", "76.36", "75.94"))
    assert "94.04" in table["values"]["VGG-11 & ResNet-19 (CIFAR-10), SASTC, T=3"]
    assert table.spread["ResNet-32x4 (CIFAR-100), ANN"] == pytest.approx(0.20)
    repeated = forensics.repeated_values()
    assert list(repeated.batch_size) == [16, 32]


def test_conclusions_say_what_is_computed():
    text = " ".join(forensics_costs.conclusions())
    assert "by 0.80 points (median)" in text
    assert "within 1.96 standard errors in 35 of 39 cells on 2,500 and 15 of 39 cells on 10,000 test images" in text
    values = {}
    for row in forensics.all_values().itertuples():
        values.setdefault((row.dataset, row.student, row.teacher, row.method, row.timesteps), []).append(row.accuracy)
    twice = [v for v in values.values() if len(v) > 1]
    equal = sum(len(set(v)) == 1 for v in twice)
    assert (len(twice), equal) == (18, 9)
    assert f"{len(twice)} cells are printed more than once: in {equal} the values are equal, in the others they" in text
    assert f"up to {max(max(v) - min(v) for v in twice):.2f} points apart" in text


def test_energy_arithmetic_by_hand():
    table = forensics_costs.energy_arithmetic().set_index("quantity")
    assert table.computed["energy of SASTC beside the ANN, T=2 (%)"] == pytest.approx(100 * 614.1 / 12511.2, abs=0.005)
    assert table[table.index.str.contains("SASTC")].agree.all()
    macs = table[table.index.str.contains("multiply")]
    assert set(macs.printed) == {"2.72"}
    assert not macs.agree.any()
    assert forensics_costs.whose_accuracies() == {"VGG-11": 0, "ResNet-18": 8}
    assert forensics_costs.same_step_costs().sastc_over_kd.tolist() == [1.64, 1.50, 1.55]


def test_dense_macs_of_vgg11_by_hand():
    sides = (32, 16, 16, 8, 8, 4, 4, 2)
    channels = (3, 64, 128, 256, 256, 512, 512, 512, 512)
    convolutions = sum(9 * a * b * s * s for a, b, s in zip(channels, channels[1:], sides, strict=False))
    assert forensics_costs.dense_macs("vgg11") == convolutions + 2048 * 4096 + 4096 * 4096 + 4096 * 100


def test_times_by_hand():
    rows = forensics_costs.times().set_index(["method", "timesteps"])
    assert rows.hours_from_appendix["KD", 2] == pytest.approx(90.49 * 240 / 3600, abs=0.005)
    assert rows.hours_in_text["SASTC", 7] == 3.6
    assert "at T=2 and T=7, by the appendix at no T" in forensics_costs.times_sentence()
    assert forensics_costs.deviations().deviations_printed.sum() == 0
    assert forensics_costs.deviations().accuracies.sum() == 132 + 6 + 30 + 20 + 15
