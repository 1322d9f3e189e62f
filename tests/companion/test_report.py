import base64
import dataclasses
import io
import math
import re

import numpy as np
import pandas as pd
import pytest

from companion import figures, report
from companion.pages import parts, table2, verdicts
from companion.pages import verdicts_claims as claims
from companion.stats import NO_INTERVAL, difference
from sastc.config import EVERY, METHODS, RunConfig
from sastc.experiments import Experiment, load_experiment
from sastc.records import Run, run_path, write_json


def table(**accuracies):
    """Runs of one pair: method to accuracies by seed, ``nan`` for a seed that is not run."""
    rows = [
        dict(dataset="cifar10", student="vgg11", teacher="" if method == "baseline" else "resnet19", method=method,
             timesteps=2, seed=seed, accuracy=value, complete=not math.isnan(value), run=f"{method}-{seed}",
             data="CIFAR-10", command=f"train {method} {seed}")
        for method, values in accuracies.items()
        for seed, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_rows_name_their_data_where_these_differ():
    runs = table(baseline=[80.0, 80.5], sastc=[95.0, 95.6])
    assert "CIFAR-10<" not in report.differences_table(runs)
    other = runs.assign(timesteps=3, data="CIFAR-10 (JPEG copy)")
    page = report.differences_table(pd.concat([runs, other], ignore_index=True))
    first, second = page.split("<tr>")[2:]
    assert '<span class="seeds">CIFAR-10</span>' in first
    assert '<span class="seeds">CIFAR-10 (JPEG copy)</span>' in second
    half = other.assign(complete=other.method == "sastc", data=["CIFAR-10"] * 2 + ["CIFAR-10 (JPEG copy)"] * 2)
    assert report.data_of(half) == "CIFAR-10 (JPEG copy)", "of what is not run nothing is known"
    assert report.data_of(half.assign(complete=False)) == "CIFAR-10 and CIFAR-10 (JPEG copy)"


def test_the_note_says_which_rows_are_tuned_and_which_share_a_teacher(tmp_path):
    plan = load_experiment("experiments/table2.yaml", "slim")
    note = report.scale_note(plan, tmp_path)
    rest = "VGG-11 &amp; ResNet-19 at T = 3, 7; ResNet-18 &amp; WRN-28-4 at T = 2"
    assert (
        "Every method of VGG-11 &amp; ResNet-19 at T = 2 has learning rate and weights of its own best trial." in note
    )
    assert f"All seeds of a pair of {rest} share one teacher and one subset of the images:" in note
    own = "All seeds of a pair of VGG-11 &amp; ResNet-19 at T = 2 share one subset of the images: the intervals do not"
    assert f"{own} cover variation between subsets." in note
    assert "10,000 of 50,000 training images" in note, "a fifth of all, or a subset"
    fraction = dataclasses.replace(plan, runs=tuple(c for c in plan.runs if not c.train_subset))
    assert "10,000 of 50,000 training images" in report.scale_note(fraction, tmp_path)
    alike = dataclasses.replace(plan, runs=tuple(c for c in plan.runs if c.train_subset))
    note = report.scale_note(alike, tmp_path)
    assert "All seeds of a pair share one teacher" in note
    assert "best trial" not in note
    quarter = report.scale_note(load_experiment("experiments/table2.yaml", "quarter"), tmp_path)
    assert "Every method has learning rate and weights of its own best trial." in quarter
    assert "share one teacher" not in quarter
    assert "No trial is run on CIFAR-100: settings there are those of CIFAR-10." in quarter


def test_cells_that_are_not_planned_have_the_settings_of_the_scale():
    plan = load_experiment("experiments/table2.yaml", "slim")
    assert plan.runs[0].learning_rate == 0.025, "a trial's"
    wanted = list(table2.wanted(plan))
    assert {(c.learning_rate, c.beta, c.train_fraction, c.teacher_seed) for c in wanted} == {(0.05, 10.0, 1.0, 0)}
    tuned = {
        (c.method, c.learning_rate, c.beta)
        for c in table2.wanted(load_experiment("experiments/table2.yaml", "quarter"))
    }
    assert tuned == {("baseline", 0.2, 10.0), ("kd", 0.05, 10.0), ("feature_kd", 0.05, 100.0), ("sastc", 0.025, 100.0)}


def test_baselines_of_two_datasets_are_kept_apart():
    runs = table(baseline=[80.0, 80.5], sastc=[95.0, 95.6])
    other = table(baseline=[60.0, 60.5], sastc=[65.0, 65.6]).assign(dataset="cifar100")
    other = other.assign(teacher=other.teacher.replace("resnet19", "resnet32x4"))
    (axis,) = figures.accuracy_overview(pd.concat([runs, other])).axes
    marks = [line for line in axis.get_lines() if line.get_marker() == figures.MARKERS["baseline"]]
    assert [list(line.get_xdata()) for line in marks] == [[80.0, 80.5], [60.0, 60.5]], "a row for each dataset"
    assert [text.get_text() for text in axis.get_yticklabels()] == [
        "VGG-11 & ResNet-19, T=2, CIFAR-10",
        "VGG-11 & ResNet-32x4, T=2, CIFAR-100",
    ]
    low, high = sorted(axis.get_ylim())
    assert all(low < y < high for line in axis.get_lines() for y in line.get_ydata()), "all marks are inside"
    page = report.differences_table(pd.concat([runs, other]))
    assert ">+15.05</span> [+14.41,\N{NO-BREAK SPACE}+15.69]" in page  # t(0.975, 1) = 12.7062 times 0.05
    assert ">+5.05</span> [+4.41,\N{NO-BREAK SPACE}+5.69]" in page


@pytest.mark.parametrize(
    ("kd", "sastc", "gap"),
    [
        ([70.0, 71.27, 72.0], [70.1, 71.37, 72.1], "+0.10"),  # their deviation is 8e-15, not 0
        ([70.0, 71.27, 72.0], [70.0, 71.27, 72.0], "+0.00"),
        ([70.0, 71.0, 72.0], list(np.float32([70.1, 71.1, 72.1]).astype(float)), "+0.10"),
    ],
)
def test_equal_differences_have_no_interval(kd, sastc, gap):
    runs = table(kd=kd, sastc=sastc)
    d = difference(runs, "sastc", "kd")
    assert (round(d.mean, 4), d.n) == (float(gap), len(kd))
    assert math.isnan(d.half)
    found = verdicts.Found(claims.CLAIMS[0], claims.pairs(runs, "sastc", ["kd"]), papers_data=True)
    assert verdicts.verdict(found) == ("open", "too few")
    assert f'{gap}</span> <span class="seeds">n={d.n}: {NO_INTERVAL}' in report.differences_table(runs)
    assert f"from equal differences against KD ({gap} points, n={d.n})" in report.held_up(runs)


def test_mean_and_deviation():
    assert report.mean_sd([90.0, 92.0]) == "91.00 ± 1.41"
    assert report.mean_sd([90.0, math.nan]) == "90.00"
    assert report.mean_sd([math.nan]) == "–"


def test_papers_numbers_are_found():
    find = report.paper_accuracy
    assert find(RunConfig(student="vgg11", teacher="resnet19", method="sastc", timesteps=2), "cifar10") == 93.55
    assert find(RunConfig(student="wrn16_2", teacher="wrn28_4", method="baseline", timesteps=7), "cifar10") == 90.80
    assert find(RunConfig(dataset="cifar100", student="resnet18", teacher="wrn40_2", method="kd", timesteps=7)) == 79.12
    assert find(RunConfig(student="vgg11", teacher="resnet19", timesteps=5), "cifar10") is None
    assert find(RunConfig(student="vgg11", teacher="resnet19")) is None, "the paper has no digits"


def test_differences_are_signed_and_judged():
    page = report.differences_table(
        table(baseline=[92.0, 93.0, 93.0], kd=[96.0, 96.5, 97.0], sastc=[94.99, 95.51, 96.0])
    )
    assert ">−1.00</span> [−1.02,\N{NO-BREAK SPACE}−0.98]" in page
    assert "n=3: worse" in page
    assert "not run" in page, "feature KD"
    data = pd.read_csv(io.BytesIO(base64.b64decode(re.search(r'base64,([^"]+)"', page)[1])))
    assert data.set_index("other")["mean"].to_dict() == pytest.approx(
        {"baseline": 8.5 / 3, "kd": -1.0, "feature_kd": math.nan}, nan_ok=True
    )


class Recorded(Run):
    """A run made of arrays, to see what the attention's verdict counts."""

    def __init__(self, attention, distance):
        arrays = dict(attention=attention[None], distance=distance[None], attention_instance=attention[None, None])
        names = np.array(["stage1", "stage2", "stage3"])
        object.__setattr__(self, "arrays", arrays | {"teacher_layers": names, "student_layers": names[:1]})

    config = RunConfig()

    @property
    def measures(self):
        return self.arrays


def test_ease_or_meaning_counts_cells():
    high = math.e**2 / (math.e**2 + 2)
    low = (1 - high) / 2
    attention = np.array([[[high, low, low]], [[0.3, 0.4, 0.3]]])  # (T=2, S=1, A=3)
    distance = np.array([[[0.1, 0.2, 0.3]], [[0.1, 0.2, 0.3]]])
    text = report.ease_or_meaning([Recorded(attention, distance)], question=True)
    assert text.startswith("In the one SASTC run there are 2 cases")
    assert "In 1 of them attention gave the largest weight possible (0.79 of 1), to within 1 %; in 1 the" in text
    assert "stage1 in 1, stage2 in 1" in text
    steps = np.abs(attention[0] - attention[1]).mean() / math.sqrt(2)
    assert f"The weights differed between time steps (standard deviation {steps:.1f})" in text  # of one image, no more


def test_a_stranger_gets_an_answer_where_there_is_no_doubt():
    high = math.e**2 / (math.e**2 + 2)
    low = (1 - high) / 2
    attention = np.array([[[high, low, low]], [[high, low, low]]])
    distance = np.array([[[0.1, 0.2, 0.3]], [[0.1, 0.2, 0.3]]])
    runs = [Recorded(attention, distance)] * 2
    text = report.ease_or_meaning(runs, question=True)
    assert text.startswith("In all 2 SASTC runs, for every student layer and time step (4 cases), ")
    assert "gave the largest weight possible (0.79 of 1) to the teacher layer that is easiest" in text
    assert "(always stage1). The weights hardly differed between time steps" in text
    plain = report.ease_or_meaning(runs)
    assert plain.startswith("In all 2")
    assert "hardly" not in plain
    doubtful = report.ease_or_meaning([*runs, Recorded(attention[..., ::-1], distance)], question=True)
    assert doubtful.startswith("In all 3")
    assert "in 4 the highest" in doubtful
    other = Recorded(attention[..., ::-1], distance)
    object.__setattr__(other, "config", RunConfig(dataset="cifar10"))
    assert "the easiest to imitate (4 of 4 on Digits, 0 of 2 on CIFAR-10). The" in report.ease_or_meaning(
        [*runs, other]
    )


def test_controls_do_not_count_as_what_attention_chose():
    high = math.e**2 / (math.e**2 + 2)
    attention = np.array([[[high, (1 - high) / 2, (1 - high) / 2]]])
    learned, control = (Recorded(attention, np.array([[[0.1, 0.2, 0.3]]])) for _ in range(2))
    object.__setattr__(control, "config", RunConfig(attention="uniform"))
    alone, both = report.ease_or_meaning([learned]), report.ease_or_meaning([learned, control])
    assert alone.startswith("In the one SASTC run, for")
    assert both == alone.replace("SASTC run,", "SASTC run with learned weights,")
    assert report.ease_or_meaning([control]) == "No SASTC run is recorded."


def slim(**changes):
    return RunConfig(dataset="cifar10", scale="slim", **changes)


def test_slim_says_what_it_is(tmp_path):
    note = report.scale_note(Experiment("x", "x", "x", "slim", (slim(), slim(method="baseline"))), tmp_path)
    assert (
        "1/8 of the channels, 10,000 of 50,000 training images, 12 epochs, bf16, learning rate = 0.05 instead of"
        in note
    )
    assert "β = 10 instead of 1300, γ = 1 instead of 0.3; tested on all test images." in note
    assert '<a href="tuning_slim.html">Other learning rates and β</a> were tried.' in note
    some = Experiment("x", "x", "x", "slim", (slim(), slim(seed=1), slim(validation=0.1)))
    assert "1 of 3 runs are tested on images held out of the training set, the others on all test images. " in (
        report.scale_note(some, tmp_path)
    )
    assert "All seeds" not in note
    assert "JPEG" not in note
    assert note.endswith("were tried. Student &amp; teacher: VGG-11 &amp; ResNet-19 at T = 2.</p>")
    others = (slim(timesteps=7), slim(), slim(method="baseline", timesteps=4), slim(student="resnet18"))
    assert report.networks(Experiment("x", "x", "x", "slim", others)) == [
        "Student &amp; teacher: VGG-11 &amp; ResNet-19 at T = 2, 7; ResNet-18 &amp; ResNet-19 at T = 2."
    ]
    students = ("vgg11", "vgg13", "resnet18", "resnet34")
    assert report.networks(Experiment("x", "x", "x", "slim", tuple(slim(student=s) for s in students))) == []
    runs = (slim(), slim(seed=1, beta=3.0), slim(seed=2, beta=30.0, epochs=6))
    note = report.scale_note(Experiment("x", "x", "x", "slim", runs), tmp_path)
    assert "6 to 12 epochs" in note
    assert "β = 3 to 30 instead of 1300" in note
    assert "All seeds of a pair share one teacher and one subset" in note
    some = (slim(), slim(gamma=0.3), slim(train_subset=0))
    note = report.scale_note(Experiment("x", "x", "x", "slim", some), tmp_path)
    assert "10,000 to 50,000 of 50,000 training images" in note
    assert "γ = 0.3 to 1 instead of 0.3" in note
    others = (slim(), slim(seed=1, teacher_seed=1))
    note = report.scale_note(Experiment("x", "x", "x", "slim", others), tmp_path)
    assert "All seeds of a pair share one subset of the images: the intervals do not cover variation between s" in note
    held_out = Experiment("x", "x", "x", "slim", (slim(validation=0.2),))
    assert "tested on images held out of the training set" in report.scale_note(held_out, tmp_path)
    copy = Run(run_path(slim(), tmp_path))
    for name, content in dict(
        config=slim().to_dict(), provenance={"data": {"name": "CIFAR-10 (JPEG copy)"}}, metrics={}
    ).items():
        write_json(copy.path / f"{name}.json", content)
    note = report.scale_note(Experiment("x", "x", "x", "slim", (slim(),)), tmp_path)
    assert 'The <a href="../data.html">data page</a> explains the JPEG copy.' in note
    digits = Experiment("x", "x", "x", "quick", tuple(RunConfig(epochs=e) for e in (2, 3, 9, 10)))
    assert "for 2 to 10 epochs on small images" in report.scale_note(digits, tmp_path)


def test_datasets_have_sizes_of_their_own():
    events = RunConfig(dataset="nmnist", scale="slim", width=1 / 16)
    both = Experiment("x", "x", "x", "slim", (slim(), slim(epochs=6), events))
    shared, own = report.size(both)[:-1], report.size(both)[-1]
    assert shared == ["bf16", "γ = 1 instead of 0.3"]
    first, second = own.split("; ")
    assert first.startswith(
        "on CIFAR-10: 1/8 of the channels, 10,000 of 50,000 training images, 6 to 12 epochs, learning"
    )
    assert second.startswith("on N-MNIST: 1/16 of the channels, 12 epochs")
    assert "60,000" not in own, "all of them"
    cifar = Experiment("x", "x", "x", "slim", (slim(), RunConfig(dataset="cifar100", scale="slim")))
    assert "10,000 of 50,000 training images" in report.size(cifar), "the same on both"
    assert report.size(cifar)[-1] == "on CIFAR-10: β = 10 instead of 1300; on CIFAR-100: β = 10 instead of 700"
    assert report.size(Experiment("x", "x", "x", "slim", ())) == []
    trial = RunConfig(dataset="cifar10", scale="quarter", validation=0.2, train_fraction=0.25)
    assert "10,000 of 50,000 training images" in report.size(Experiment("x", "x", "x", "quarter", (trial,)))


def test_what_is_changed_of_the_papers_scale_is_said(tmp_path):
    note = report.scale_note(report.load_experiment("experiments/table2.yaml", "paper"), tmp_path)
    assert note.startswith('<p class="scale-note"><strong>The paper\'s scale</strong>.')
    note = report.scale_note(report.load_experiment("experiments/first_steps.yaml", "paper"), tmp_path)
    assert "</strong>: teachers with 1/4 of the channels, 12,800 of 50,000 training images, 1 epoch, bf16. S" in note


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (RunConfig(dataset="cifar10", scale="paper"), "93.55 % on CIFAR-10</dd>"),
        (slim(), "93.55 % on CIFAR-10; not comparable: other networks, images and schedule</dd>"),
        (RunConfig(), "on CIFAR-10; not comparable"),
        (slim(attention="cka"), None),
        (RunConfig(dataset="cifar10", scale="paper", gamma=1.0), None),
    ],
)
def test_a_runs_page_names_the_papers_value_for_the_papers_settings_alone(tmp_path, config, told):
    folder = run_path(config, tmp_path)
    write_json(folder / "config.json", config.to_dict())
    numbers = dict(last_accuracy=50.0, best_accuracy=51.0, best_epoch=1, epochs=2, parameters=3)
    write_json(folder / "metrics.json", numbers | dict(train_seconds_per_epoch=1.0))
    write_json(folder / "provenance.json", dict(device="a CPU", device_type="cpu"))
    page = report.run_summary(Run(folder))
    assert told in page if told else "Table 2" not in page
    assert report.ease_or_meaning([]) == "No SASTC run is recorded."


def test_held_up_says_what_intervals_allow():
    runs = table(baseline=[90.0, 90.2, 90.1], kd=[95.0, 93.0, 94.0], sastc=[94.0] * 3)
    sentence = report.held_up(runs)
    assert sentence.startswith("SASTC is better than the baseline (+3.90 [+3.65, +4.15] points, n=3), ")
    assert "not distinguishable from KD (+0.00 [−2.48, +2.48] points, n=3)" in sentence
    assert sentence.endswith(", and not compared with feature KD.")
    assert report.held_up(runs[runs.seed == 0]) == (
        "One seed decides nothing: SASTC has +4.00 points against the baseline and −1.00 points against KD (n=1)."
    )
    mixed = runs[(runs.seed == 0) | (runs.method != "kd")]
    assert "not to be judged from one seed against KD (−1.00 points, n=1)" in report.held_up(mixed)


def test_the_front_page_counts_every_pair_of_several_seeds(tmp_path):
    first = table(baseline=[90.0, 90.2, 90.1], kd=[95.0, 93.0, 94.0], sastc=[94.0] * 3)
    second = table(baseline=[90.0, 90.2, 90.1], kd=[80.1, 80.2, 80.15], sastc=[80.0, 80.25, 80.1]).assign(
        student="resnet18"
    )
    second = pd.concat([second, second.assign(timesteps=3)])
    once = table(sastc=[70.0]).assign(student="wrn16_2")
    experiment = Experiment("x", "x", "table2", "paper", (RunConfig(dataset="cifar10", scale="paper"),))
    told = report.headlines(pd.concat([once, second, first]), experiment, tmp_path)
    assert told["held_up"] == (
        "SASTC beats the baseline in 1 of 3 combinations of networks and T and loses to it in 2 (−9.98 to +3.90), KD "
        "in 0 of 3 (−0.03 to +0.00). This counts 95 % intervals over seeds (n=3), corrected for their number; brackets "
        "hold the lowest and the highest mean difference in points of accuracy."
    )
    page = told["results_short"]
    assert (
        0 < page.index('VGG-11 &amp;<br>ResNet-19 <span class="seeds">n=3') < page.index("ResNet-18 &amp;<br>ResNet-19")
    )
    assert "WRN-16-2" not in page
    assert '<span class="ours">90.10 ± 0.10</span><span class="paper">paper 92.48</span>' in page
    assert "T=3" not in page
    assert page.count('<span class="ours">–</span>') == 2  # feature KD
    told = report.headlines(once, experiment, tmp_path)["held_up"]
    assert told.startswith("SASTC is not compared with the baseline")


def test_collect_shows_what_is_not_run(tmp_path):
    experiment = Experiment("x", "x", "table2", "quick", (RunConfig(method="kd"),))
    runs = report.collect(experiment, tmp_path)
    assert not runs.complete.any()
    assert runs.accuracy.isna().all()
    assert runs.command[0] == "python -m sastc train method=kd"
    assert "not compared with KD" in report.headlines(runs, experiment, tmp_path)["held_up"]
    assert "1 not run" in report.footer(report.runs_of(experiment, tmp_path), "make book")
    assert report.one_of_each(experiment, tmp_path) == []


def test_every_method_has_its_colour_and_shape():
    assert set(figures.COLOURS) == set(figures.MARKERS) == set(EVERY)
    for looks in (figures.COLOURS, figures.MARKERS):  # those that stand in one figure
        assert len({looks[method] for method in ("teacher", *METHODS)}) == 5


def test_a_page_links_to_one_that_the_book_has():
    shown = load_experiment(report.ROOT / "experiments" / "controls.yaml", "quick").of_record
    for scale in ("quick", "slim", "quarter", "paper"):
        name = parts.page_name("controls", scale if scale in ("quick", *shown) else shown[0])
        assert parts.page_link("controls", scale, "x") == f'<a href="{name}.html">x</a>'


def test_the_spread_of_attention_is_told_without_exponents():
    config = RunConfig(dataset="cifar10", scale="quarter", method="sastc", timesteps=2, learning_rate=0.025, beta=100.0)
    run = Run(run_path(config, report.ROOT / "results"))
    assert run.complete
    page = report.attention_spread_table([run])
    shown = re.findall(r"<td>([^<]*)</td>", page)
    assert shown[0] == "0.32"
    assert all(re.fullmatch(r"0\.0000\d{1,3}", value) for value in shown[1:]), shown
