"""The page of Table 6: its words and numbers against values set by hand, its figures for simulated and real shapes."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from made_up_runs import plan, record

from companion.figures import loss_parts
from companion.pages import headlines, table6
from companion.pages import verdicts_claims as claims
from companion.report import ROOT
from sastc.config import METHODS, RunConfig
from sastc.data import simulate_events
from sastc.experiments import load_experiment
from sastc.records import Run, run_path, write_json

BASE = RunConfig(dataset="digits_dvs", student="resnet18", timesteps=3)
ACCURACY = {"baseline": 80.0, "kd": 84.0, "feature_kd": 86.0, "sastc": 90.0}
ATTENTION = np.array([[[0.5, 0.3, 0.2]], [[0.2, 0.6, 0.2]], [[0.3, 0.5, 0.2]]])  # (T, S = 1, A = 3)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def measures(accuracy, seed):
    """Arrays of a run with three steps and three classes, of 10, 10 and 20 test images."""
    confusion = np.array([[9, 1, 0], [4, 6, 0], [0, 1, 19]])
    attention = ATTENTION[None] + [0.01 * seed, -0.01 * seed, 0.0]
    return dict(
        accuracy_by_step=np.array([accuracy - 20, accuracy - 0.5, accuracy]),
        confusion=confusion,
        class_names=np.array(["a", "b", "c"]),
        attention=attention,
        attention_instance=np.stack([attention[0] + [0.02, -0.02, 0.0], attention[0] - [0.02, -0.02, 0.0]])[None],
        student_layers=np.array(["stage1"]),
        teacher_layers=np.array(["stage1", "stage2", "stage3"]),
    )


@pytest.fixture
def runs(tmp_path):
    """Four methods with two seeds; SASTC with a teacher that sees each frame is 1 and 3 points better."""
    configs = [BASE.replace(method=m, seed=seed) for m in METHODS for seed in (0, 1)]
    configs += [BASE.replace(method="sastc", seed=seed, teacher_input="per_step") for seed in (0, 1)]
    experiment = plan(*configs)
    for config in (*configs, *experiment.teachers):
        accuracy = ACCURACY.get(config.method, 99.0) + config.seed
        if config.teacher_input == "per_step":
            accuracy += 1 + config.seed
        record(tmp_path, config, measures(accuracy, config.seed), accuracy=accuracy)
    return table6.collect(experiment, tmp_path)


def test_runs_include_the_teachers_once(runs):
    assert runs.run.is_unique
    teachers = runs[runs.method == "teacher"]
    assert sorted(teachers.teacher_input) == ["mean_frame", "per_step"]
    assert table6.students(runs) == ["resnet18"]


def test_sentences_pair_seeds_and_name_the_interval(runs):
    found = table6.sentences(runs)
    assert [s for s in found if "SASTC minus KD +6.00 points (n=2: cannot say from two seeds)" in s]
    # differences 1 and 2: mean 1.5, t(0.975, 1) = 12.706 times the deviation 0.7071 over the root of 2
    assert [s for s in found if "mean frame +1.50 [−4.85, +7.85] points (n=2: cannot say" in s]
    assert len(found) == 4


def test_table_keeps_ours_and_theirs_apart(runs):
    theirs, ours = table6.literature(), table6.table(runs, recorded=False)
    assert '<span class="paper">97.92</span>' in theirs
    assert '<span class="paper">83.17</span>' in theirs
    assert 'class="ours"' not in theirs
    assert 'class="paper"' not in ours
    assert "no row can be compared with one of the paper's" in ours
    assert "no row" not in table6.table(runs, recorded=True)
    rows = [re.findall(r">([^<>]+)<", row) for row in ours.split("<tr>")[2:]]
    found = {(row[1], row[3] if "frame" in row[3] or "step" in row[3] else ""): row for row in rows}
    assert "ResNet-18" in found["Baseline", ""]
    assert "80.50 ± 0.71" in found["Baseline", ""]
    assert "ResNet-18 &amp; ResNet-19" in found["SASTC", "per_step"]
    assert "92.00 ± 1.41" in found["SASTC", "per_step"]
    assert "90.50 ± 0.71" in found["SASTC", "mean_frame"]
    assert "99.00" in found["Teacher (ANN)", "mean_frame"]
    assert "100.00" in found["Teacher (ANN)", "per_step"]
    assert len(rows) == len(found) == 7


def test_arrival(runs):
    (words,) = [s for s in table6.arrival_sentences(runs) if ", SASTC:" in s]
    assert words == (
        "ResNet-18, SASTC: 70.5 % after the first of 3 steps, 90.5 % after the last; within 1 point of that from step "
        "2 on."
    )
    assert "from step 3 on" in table6.arrival_sentences(runs, margin=0.1)[0]
    (axis,) = table6.arrival_figure(runs).axes
    sastc = axis.lines[list(METHODS).index("sastc")]
    assert sastc.get_ydata().tolist() == [70.5, 90.0, 90.5]
    assert sastc.get_xdata().tolist() == [1, 2, 3]


def test_confusion_is_summed_over_runs(runs):
    sastc = [Run(path) for path in runs[runs.method == "sastc"].path]
    np.testing.assert_allclose(table6.confusion(sastc)[0], [[90, 10, 0], [40, 60, 0], [0, 5, 95]])
    assert table6.confusion_sentence(sastc) == (
        "Recognised best: c (95 %); worst: b (60 %). Most often b is taken for a (40 %; the other way round 10 %)."
    )
    cells = {t.get_text() for t in table6.confusion_figure(sastc).axes[0].texts}
    assert cells == {"90", "10", "40", "60", "5", "95"}
    assert "Seeds: 2 of ResNet-18. On 40 test images" in table6.caution(runs)


def test_attention_sentences(runs):
    rows = runs[(runs.method == "sastc") & (runs.teacher_input == "mean_frame")]
    spread, favourite, moved = table6.attention_sentences([Run(path) for path in rows.path])
    # over time: 0.1528 and 0.1528 for the two weights that move, 0 for the third
    assert f"deviation is {2 * np.std([0.5, 0.2, 0.3], ddof=1) / 3:.4f} over time steps" in spread
    assert f"{0.04 * np.sqrt(2) / 3:.4f} between images" in spread
    assert f"{2 * np.std([0, 0.01], ddof=1) / 3:.4f} between seeds (2 runs)" in spread
    assert "between images (1 run)." in table6.attention_sentences([Run(rows.path.iloc[0])])[0]
    assert "at every step in 0 of 2 cases" in favourite
    assert "student stage1 on teacher stage1: from 0.505 at t = 1 to between 0.205 and 0.305 later" in moved
    assert moved.endswith("The largest change is between the first two steps.")
    assert table6.attention_sentences([]) == ["No SASTC run is recorded."]
    figure = table6.attention_figure(Run(rows.path.iloc[0]))
    assert len(figure.axes) == 1
    assert [words.get_text() for words in figure.legends[0].get_texts()] == [f"teacher stage{a}" for a in (1, 2, 3)]
    assert figure.axes[0].lines[1].get_ydata() == pytest.approx([0.3, 0.6, 0.5])


def test_schedules_together():
    words = table6.schedule_sentence(RunConfig(dataset="dvs_gesture", scale="paper"))
    # 100 epochs of 0.1 at 0.01; 50, 30, 20 of 0.1, 0.01, 0.001 at 0.1; 10, 50, 40 of 1e-3, 1e-4, 1e-5 at 1
    parts = np.array([0.1, 0.5 + 0.03 + 0.002, 0.01 + 0.005 + 0.0004])
    first, second, last = 100 * parts / parts.sum()
    assert f"over 300 epochs, {first:.0f}, {second:.0f} and {last:.0f} % fall" in words
    assert "most in the second third" in words


@pytest.mark.parametrize(("steps", "panels"), [(1, 1), (6, 6), (16, 16), (11, 11)])
def test_frames_are_on_minus_off(steps, panels):
    frames = np.random.default_rng(0).integers(0, 9, (steps, 2, 5, 5)).astype(np.uint8)
    shown = [axis for axis in table6.frames_figure(frames).axes if axis.images]
    assert len(shown) == panels
    for axis, frame in zip(shown, frames, strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), frame[1].astype(int) - frame[0])


def test_stream_figure_shows_every_event_once():
    image = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    image[..., 2:5] = 255
    stream = simulate_events(image)
    _, space, rate = table6.stream_figure(image[0, 0].numpy(), stream).axes
    assert sum(len(points._offsets3d[0]) for points in space.collections) == len(stream.t)
    assert space.xaxis.pane.get_facecolor()[3] == 0, "no ground of its own: events are seen on a dark page, too"
    seconds = np.diff(rate.lines[0].get_xdata()[:2])[0] / 1e3
    assert sum(line.get_ydata().sum() * 1e3 * seconds for line in rate.lines) == pytest.approx(len(stream.t))
    words = table6.stream_sentence(stream)
    assert f"{len(stream.t):,} events in " in words
    assert "8 × 8 pixels" in words


def test_loss_parts_weigh_with_the_beta_of_each_epoch(tmp_path):
    config = BASE.replace(method="sastc", epochs=3, beta=50.0)
    record(tmp_path, config)
    folder = run_path(config, tmp_path)
    write_json(folder / "provenance.json", {"data": {"name": "Digits-DVS"}})  # what a caption names
    (folder / "history.csv").write_text(
        "epoch,cross_entropy,kd_loss,feature_loss\n" + "".join(f"{e},1.0,2.0,0.1\n" for e in (1, 2, 3))
    )
    lines = {line.get_label(): line.get_ydata() for line in loss_parts(Run(folder)).axes[0].lines}
    np.testing.assert_allclose(lines["β × feature loss (β = 50)"], [0.05, 0.5, 5.0])


# --- runs of record on N-MNIST ----------------------------------------------------------------------


def test_wilson_interval():
    # as Newcombe (1998) prints it for 81 of 263, 15 of 148, 0 of 20 and 1 of 29
    known = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0, 0.1611), (1, 29): (0.0061, 0.1718)}
    for (k, n), ends in known.items():
        assert table6.wilson(k / n, n) == pytest.approx(ends, abs=5e-5)


@pytest.fixture
def of_record(tmp_path):
    """Runs on 40 test recordings: both readings of the teacher's input, and the baseline with other first weights."""
    base = RunConfig(dataset="nmnist", student="vggsnn", teacher="vggsnn", timesteps=3)
    configs = [base.replace(method=m, seed=seed) for m in METHODS for seed in (0, 1)]
    configs += [base.replace(method=m, seed=seed, teacher_input="per_step") for m in METHODS[1:] for seed in (0, 1)]
    configs += [base.replace(method="baseline", seed=seed, vggsnn_init="he") for seed in (0, 1)]
    for config in configs:
        accuracy = ACCURACY[config.method] + config.seed + 2 * (config.teacher_input == "per_step")
        accuracy += 3 * (config.vggsnn_init == "he")
        record(tmp_path, config, measures(accuracy, config.seed), accuracy=accuracy)
        name = "N-MNIST (60 + 40 recordings only)"
        facts = {"name": name, "train_images": 60, "test_images": 40}
        write_json(run_path(config, tmp_path) / "provenance.json", {"data": facts})
    return table6.collect(plan(*configs), tmp_path)


def test_the_page_says_how_small_the_test_set_is(of_record):
    words = table6.small_test_set(table6.as_preset(of_record))
    assert "N-MNIST (60 + 40 recordings only): recorded by a camera, 60 recordings for training and 40 for" in words
    assert "One test recording is 2.5 percentage points." in words
    share = np.mean([80.5, 84.5, 86.5, 90.5, 86.5, 88.5, 92.5]) / 100
    low, high = (100 * end for end in table6.wilson(share, 40))
    assert f"of {100 * share:.1f} %, the mean of these runs, on so few has a 95 % interval from {low:.1f} to" in words
    assert f"to {high:.1f} % (binomial, Wilson)" in words


def test_both_readings_of_the_teachers_input_are_compared(of_record):
    shown = table6.as_preset(of_record)
    found = table6.sentences(shown)
    assert [s for s in found if "SASTC minus Baseline +10.00 points" in s]
    assert [s for s in found if "SASTC minus KD, both with a teacher that sees each step's frame +6.00 points" in s]
    for label in ("KD", "Feature KD", "SASTC"):
        words = f": {label} with a teacher that sees each step's frame minus one that sees the mean frame +2.00"
        assert len([s for s in found if words in s]) == 1, label
    table = table6.table(shown, recorded=True, name="table6-nmnist")
    assert "N-MNIST (60 + 40 recordings only)" in table, "the data as the runs name them"
    assert "table6-nmnist" in table
    assert "80.50 ± 0.71" in table, "the baseline with other first weights stands apart"
    assert "no row can be compared" not in table


def test_every_dataset_of_recorded_events_has_its_sentence(of_record):
    one = headlines.event_data(of_record)
    assert one.startswith("On recorded events (N-MNIST) SASTC is ")
    assert "baseline (+10.00 " in one
    other = of_record.assign(dataset="dvs_gesture", accuracy=of_record.accuracy.where(of_record.method != "sastc", 0.0))
    first, second = headlines.event_data(pd.concat([of_record, other])).split(" On recorded events ")
    assert first == one
    assert second.startswith("(DVS-Gesture) SASTC is ")
    assert "baseline (−" in second


def test_readings_of_the_teachers_input_are_told_by_data(runs, of_record):
    assert table6.readings(runs, of_record) == (
        "On Digits-DVS (simulated), with a teacher that sees the mean of the frames: KD, Feature KD, SASTC; with one "
        "that sees each step's frame: SASTC. On N-MNIST (60 + 40 recordings only), with a teacher that sees the mean "
        "of the frames: KD, Feature KD, SASTC; with one that sees each step's frame: KD, Feature KD, SASTC."
    )
    assert table6.readings(runs.assign(complete=False), of_record[:0]) == ""


def test_first_weights_are_compared_apart(of_record):
    words = table6.first_weights(of_record)
    assert "(<code>vggsnn_init=he</code>) the baseline changes by +3.00 points, 2 seeds" in words
    assert table6.first_weights(table6.as_preset(of_record)) == ""
    assert table6.first_weights(of_record[:0]) == ""


def test_teachers_that_are_no_better_than_the_baseline_are_named(runs):
    words = table6.teachers_sentence(runs)
    assert words == (
        "Teachers, beside a baseline at 80.50 %: the one that sees the mean frame is at 99.00 %; the one that sees "
        "each frame is at 100.00 %."
    )
    weak = runs.assign(
        accuracy=[80.5 if m == "teacher" else a for m, a in zip(runs.method, runs.accuracy, strict=True)]
    )
    assert "mean frame is at 80.50 %, no better than the baseline;" in table6.teachers_sentence(weak)
    assert table6.teachers_sentence(runs[runs.method != "teacher"]) == ""


def test_verdicts_count_the_preset_alone(of_record):
    found = claims.events(of_record)
    assert [round(d.mean, 2) for _, d, _ in found] == [10.0, 6.0, 4.0], "less baseline, KD, feature KD, on equal terms"
    assert {d.n for _, d, _ in found} == {2}


def test_nothing_of_record_is_an_empty_frame(tmp_path):
    experiment = load_experiment(ROOT / "experiments/table6.yaml", "quick")
    assert experiment.of_record == ("slim",)
    assert len(table6.as_preset(table6.recorded(experiment, tmp_path))) == 0


def test_table6_of_record_is_what_the_experiment_lists():
    """All methods, both readings of the teacher's input, three seeds; what is recorded is clean and small."""
    experiment = load_experiment(ROOT / "experiments/table6.yaml", "slim")
    plan = [config for config in experiment.runs if config.vggsnn_init == "pytorch" and config.student]
    expected = {(m, s) for m in METHODS for s in ("mean_frame", "per_step")} - {("baseline", "per_step")}
    assert {(config.method, config.teacher_input) for config in plan} == expected
    assert {config.seed for config in plan} == {0, 1, 2}
    assert {(config.dataset, config.precision, config.memory_format) for config in plan} == {
        ("nmnist", "fp32", "contiguous")
    }
    recorded = [Run(run_path(config, ROOT / "results")) for config in experiment.runs]
    assert all(run.complete for run in recorded)
    for run in recorded:
        assert run.provenance["data"]["name"] == "N-MNIST (1000 + 100 recordings only)"
        assert run.provenance["dirty"] is False
        assert sum(file.stat().st_size for file in run.path.iterdir() if file.suffix != ".pt") < 200_000
