"""What the README says of results is what the recorded runs say."""

import re
from pathlib import Path

import pytest

from companion import report
from companion.pages import bench, choices, controls, first_steps
from companion.pages.parts import frame
from companion.stats import difference, family
from sastc.attention import attention_bounds
from sastc.config import METHODS, STUDENT, RunConfig
from sastc.experiments import load_experiment
from sastc.records import Run, run_path

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def text():
    return re.sub(r"\s+", " ", (ROOT / "README.md").read_text(encoding="utf-8")).replace("−", "-")


@pytest.fixture(scope="module")
def table2():
    return report.collect(load_experiment(ROOT / "experiments/table2.yaml", "slim"), ROOT / "results")


def test_resnet(text, table2):
    runs = table2[table2.student == "resnet18"]
    assert set(runs[runs.complete].groupby("method").size()) == {5}
    assert "ResNet-18 with a WRN-28-4 teacher at T=2 (5 seeds)" in text
    of = {m: runs[runs.method == m].accuracy for m in METHODS}
    names = ("baseline", "KD", "feature KD", "SASTC")
    told = [f"{name} {of[m].mean():.2f} ± {of[m].std():.2f} %" for name, m in zip(names, METHODS, strict=True)]
    pair = dict(dataset="cifar10", student="resnet18", teacher="wrn28_4")
    papers = [f"{report.paper_accuracy(RunConfig(**pair, method=m)):.2f}" for m in METHODS]
    assert f"ResNet-18: {', '.join(told)} (the paper: {', '.join(papers)} %)." in text
    gaps = {m: difference(runs, "sastc", m) for m in METHODS[:-1]}
    words = {m: f"{d.mean:+.2f}, {d.low:+.2f} to {d.high:+.2f}" for m, d in gaps.items()}
    better = f"than the baseline ({words['baseline']}) and than KD ({words['kd']});"
    assert better in text.replace("95 % interval ", "")
    assert {gaps["baseline"].judgement, gaps["kd"].judgement} == {"better"}
    every = [difference(report._same_pair(table2, *pair), "sastc", "feature_kd") for pair in report._pairs(table2)]
    assert len(every) == 4
    corrected = next(d for d in family(every) if d == gaps["feature_kd"])
    assert (gaps["feature_kd"].judgement, corrected.judgement) == ("better", "not distinguishable")
    words = (
        f"against feature KD ({words['feature_kd']}) the interval alone would say better, but corrected for the four"
    )
    assert f"{words} comparisons of that kind in Table 2 (Holm) the question is open" in text


def test_order(text, table2):
    rest = table2[(table2.student == "vgg11") & (table2.timesteps != 2)]
    assert set(rest[rest.complete].groupby(["timesteps", "method"]).size()) == {3}
    assert "VGG-11 at T=3 and 7 (3 seeds)" in text
    means = rest.pivot_table("accuracy", "timesteps", "method")
    assert "VGG-11's means at T=3 and 7 come in one order: baseline, KD, SASTC, feature KD." in text
    orders = {tuple(row.sort_values().index) for _, row in means.iterrows()}
    assert orders == {("baseline", "kd", "sastc", "feature_kd")}


def test_first_steps(text):
    told = ("largest on the easiest layer in {} % of cases", "queries and keys in {} % (chance: 33 %; one run each")
    runs = load_experiment(ROOT / "experiments/first_steps.yaml", "paper").runs
    assert [config.qk_norm for config in runs] == [True, False]
    for config, words in zip(runs, told, strict=True):
        found = first_steps.steps(Run(run_path(config, ROOT / "results")))
        late = 100 * found.easiest[found.step >= 15]
        assert words.format(f"{late.min():.0f} to {late.max():.0f}") in text
        assert found.chance[0] == pytest.approx(1 / 3)
        assert found.step.max() < 100


def test_trials(text):
    rows = frame(load_experiment(ROOT / "experiments/tuning.yaml", "quarter"), ROOT / "results")
    assert set(rows.groupby("method").size()) == {11}
    assert (rows.complete | rows.diverged.notna()).all()
    done = rows[rows.complete]
    best = {method: f"{of_each.accuracy.max():.2f} %" for method, of_each in done.groupby("method")}
    assert "11 trials for each of four methods" in text
    assert (
        f"the best trials reach {best['feature_kd']} (feature KD), {best['sastc']} (SASTC), {best['kd']} (KD) and "
        f"{best['baseline']} (baseline)" in text
    )
    worst = {m: done.loc[done[done.method == m].accuracy.idxmin()] for m in ("feature_kd", "sastc")}
    assert {row.beta for row in worst.values()} == {3.0}
    feature_kd, sastc = (f"{worst[m].accuracy:.2f} %" for m in ("feature_kd", "sastc"))
    assert f"both with β = 3, reach {feature_kd} (feature KD) and {sastc} (SASTC):" in text
    gaps = []
    for scale in ("quarter", "slim"):
        trials = frame(load_experiment(ROOT / "experiments/tuning.yaml", scale), ROOT / "results").dropna(subset="stm")
        trials = trials if scale == "quarter" else trials[trials.learning_rate == 0.05]  # that of its runs
        of_each = trials.groupby(["method", "beta"]).accuracy.max()
        gaps += [of_each[method].max() - of_each[method, 10.0] for method in worst]
    told = "With β = 10 the trials at a quarter of the width stay {:.2f} (feature KD) and {:.2f} points (SASTC) below "
    told += "their best; in the small scale's own trials "
    assert (told + "{:.2f} and {:.2f}.").format(*gaps) in text
    (teacher,) = {Run(path).provenance["teacher"]["accuracy"] for path in done[done.method != "baseline"].path}
    assert f"with a teacher of {teacher:.2f} %" in text


def test_students_with_the_settings_of_the_best_trials(text):
    runs = load_experiment(ROOT / "experiments/table2.yaml", "quarter").runs
    first = {config.method: Run(run_path(config, ROOT / "results")) for config in runs if config.seed == 0}
    of = {method: f"{run.metrics['accuracy']:.2f} %" for method, run in first.items()}
    words = [
        f"{name} {of[method]}" for name, method in (("SASTC", "sastc"), ("KD", "kd"), ("the baseline", "baseline"))
    ]
    told = f"feature KD reaches {of['feature_kd']}, {words[0]}, {words[1]} and {words[2]}"
    assert f"{told} (one seed each, so without intervals)" in text
    teachers = {first[m].provenance["teacher"]["accuracy"] for m in ("kd", "feature_kd", "sastc")}
    assert {f"{accuracy:.2f} %" for accuracy in teachers} == {"91.19 %"}
    assert "a teacher of 91.19 %" in text
    assert {config.epochs for config in runs} == {12}
    assert "From the first epoch on, SASTC's attention is at its bound on the easiest layer in that run too." in text
    assert_saturated(first["sastc"], range(12))


def assert_saturated(run, epochs):
    """In every cell the largest weight is the largest possible one, and lies on the easiest layer."""
    for epoch in epochs:
        attention, distance = (run.measures[name][epoch] for name in ("attention", "distance"))
        assert (attention.argmax(-1) == distance.argmin(-1)).all()
        assert (attention.max(-1) > 0.99 * attention_bounds(attention.shape[-1])[1]).all()


def test_attention(text, table2):
    assert "In each SASTC run of Table 2 at T=2 the attention of every student layer gives the largest weight" in text
    names = table2.query("method == 'sastc' and timesteps == 2 and complete").run
    assert len(names) >= 9
    for name in names:
        assert_saturated(Run(ROOT / "results/slim" / name), [-1])


def test_controls(text):
    found = frame(load_experiment(ROOT / "experiments/controls.yaml", "slim"), ROOT / "results")
    changes = controls.changes_of_accuracy(found)
    names = {"uniform": "uniform", "random": "random", "untrained": "untrained", "cka": "from CKA"}
    uniform = changes["uniform"]
    assert uniform.judgement == "better"
    assert f"Uniform weights in the place of its learned attention give {uniform.mean:+.2f} points more." in text
    (n,) = {changes[control].n for control in names}
    told = ", ".join(f"{name} {changes[c].words()}" for c, name in names.items()).replace("−", "-")
    assert f"change the accuracy by (points, original CIFAR-10, {n} seeds): {told}." in text
    words = {"better": "more accurate than with learned weights", "worse": "less accurate"}
    words["not distinguishable"] = "not distinguishable"
    of = {says: [name for c, name in names.items() if changes[c].judgement == says] for says in words}
    told = "; ".join(f"{words[says]}: {', '.join(which)}" for says, which in of.items() if which)
    assert f"Corrected for their number (Holm): {told}." in text


def test_other_choices(text):
    found = frame(load_experiment(ROOT / "experiments/variants.yaml", "slim"), ROOT / "results")
    assert "every method loses about ten points, and SASTC still gains over baseline and KD" in text
    narrow = choices.gains(found).set_index("switch").loc["gamma = 0.3"]
    assert (narrow.baseline.judgement, narrow.kd.judgement) == ("better", "better")
    lost = choices.in_every_method(found[found.variant == "paper"], "gamma").accuracy
    assert all(-12 <= d.mean <= -9 for d in lost)


def test_precision(text):
    found = frame(load_experiment(ROOT / "experiments/precision.yaml", "slim"), ROOT / "results")
    found = found[found.precision == "fp32"]
    differences = [difference(found, "sastc", other) for other in ("baseline", "kd")]
    words = [f"({d.mean:+.2f}, {d.low:+.2f} to {d.high:+.2f})" for d in differences]
    assert f"in fp32 VGG-11 gains over the baseline {words[0]} and KD {words[1]} too" in text


@pytest.fixture(scope="module")
def bench_runs():
    plan = load_experiment(ROOT / "experiments/bench.yaml", "slim")
    return bench.collect(plan, ROOT / "results").query("scale == 'slim' and validation == 0")


def test_table_of_the_bench(text, bench_runs):
    (rows,) = bench.comparisons(bench.leaderboard(bench_runs))
    shown = rows[(rows.verdict == bench.HELPS) | ((rows.method == "kd") & (rows.n > 0)) | (rows.method == "baseline")]
    table = text.partition("accuracy (the paper) | |---|---|---|---|---| ")[2]
    for row in shown.itertuples():
        gain = "–" if row.arm == "kd" else f"{row.gain:+.2f} [{row.low:+.2f}, {row.high:+.2f}]"
        config = RunConfig(dataset="cifar10", student="vgg11", teacher="resnet19", method=row.method)
        paper = report.paper_accuracy(config) if row.longer == 1 else None
        cells = (
            row.label,
            f"{row.accuracy:.2f} ± {row.sd:.2f}",
            gain,
            f"{row.cost:.2f}",
            f"{paper:.2f}" if paper else "–",
        )
        line = f"| {' | '.join(cells)} | "
        assert table.startswith(line)
        table = table.removeprefix(line)
    assert not table.startswith("|")


def test_all_methods_under_equal_conditions(text, bench_runs):
    runs = bench_runs
    (rows,) = bench.comparisons(bench.leaderboard(runs))
    done = runs[runs.complete & (runs.epochs == 12)]
    seeds = done.groupby("method").seed.nunique()
    assert set(seeds.index) == set(STUDENT)
    assert seeds.nunique() == 1
    assert f"{seeds.min()} seeds, each with a teacher of its own that has seen all images" in text
    assert f"all images ({rows.teachers.iloc[0].replace('–', ' to ')} %);" in text
    assert f"{len(seeds)} methods were trained under equal conditions on the original CIFAR-10" in text
    trials = load_experiment(ROOT / "experiments/bench.yaml", "slim").runs
    assert {sum(c.validation > 0 for c in trials if c.method == method) for method in STUDENT} == {7}
    of = {name: ", ".join(rows.label[rows.verdict == name]) for name in (*bench.SAID, "")}
    assert f"Better than KD, corrected for {rows.family.iloc[0]} comparisons (Holm): {of[bench.HELPS]}." in text
    assert (f" Worse: {of[bench.WORSE]}." in text) == bool(of[bench.WORSE])
    assert f"Not distinguishable from KD: {of[bench.UNTOLD]}." in text
    broken = rows[rows.method == "ckdsnn"].iloc[0]
    assert f"(uncorrected) wholly below half a point: {of[bench.NO_HELP]}." in text
    assert (
        f"CKDSNN's training breaks down midway at the settings that the rule chose ({broken.gain:+.2f} points)." in text
    )
    assert re.search(r"in runs of CKDSNN, (\d) of \1 \(small-scale runs\):", bench.unstable(runs))
    assert bench.worth(rows[rows.longer == 1]).replace("−", "-") in text
    mine = rows[rows.method == "sastc"].iloc[0]
    gap = difference(runs[runs.epochs == 12], "sastc", "feature_kd")
    assert (mine.verdict, gap.judgement) == (bench.HELPS, "worse")
    assert re.search("worse: [^;]*SASTC −", bench.worth(rows[rows.longer == 1]))
    told = f"**At this small scale SASTC is better than KD after as many epochs ({mine.gain:+.2f} points), worse than "
    told += f"feature KD ({gap.mean:+.2f}), and worse than KD that is trained for as long as SASTC takes "
    assert f"{told}({mine.gain_as_long:+.2f}).**" in text
    (ideas,) = bench.ideas(runs)
    for other in ("Feature KD", "SemCKD"):
        words = re.search(rf"\(SASTC − {other}\): (\S+ \[.+?\]) points, ([a-z ]+), n=", ideas)
        assert f"SASTC - {other}: {words[1]} points, {words[2]}".replace("−", "-") in text
