"""Pages that set one thing against another: joins with the paper, differences, and what is said of them."""

import dataclasses
import html
import itertools
import re

import made_up_runs
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from companion import report
from companion.pages import choices, figure2, grid, sweeps, table2, table4
from sastc.config import RunConfig
from sastc.experiments import load_experiment
from sastc.records import Run, run_path, write_json


@pytest.fixture
def plan(request):
    def load(name, scale="quick"):
        return load_experiment(request.config.rootpath / "experiments" / f"{name}.yaml", scale)

    return load


@pytest.fixture
def record(tmp_path):
    """Record runs that never ran, with the accuracies that a test decides."""

    def write(configs, value):
        for config in configs:
            folder = run_path(config, tmp_path)
            write_json(folder / "config.json", config.to_dict())
            write_json(folder / "metrics.json", {"accuracy": float(value(config)), "stm": 1.0})
        return tmp_path

    yield write
    plt.close("all")


def point(config):
    """Accuracy that a formula gives, so that a cell in a wrong place shows."""
    return (
        50.0
        + 10 * ("teacher", "baseline", "kd", "feature_kd", "sastc").index(config.method)
        - 4 * config.label_noise
        - (config.noise_teacher == "same_noise")
        + 0.125 * config.seed
    )


def test_images_are_paired_by_mcnemar_where_predictions_are_recorded(plan, record, tmp_path):
    import sastc

    labels = sastc.load_dataset("digits", image_size=12).test.labels.numpy()
    wrong = {"kd": slice(0, 9), "sastc": slice(6, 8)}  # SASTC alone is right on 7, KD alone on none
    configs = [RunConfig(method=m, seed=s, teacher_seed=s) for m in ("baseline", "kd", "sastc") for s in (0, 1)]
    record(configs, point)
    for config in configs:
        predicted = labels.copy()
        places = wrong.get(config.method, slice(0, 0))
        predicted[places] = (labels[places] + 1) % 10
        confusion = np.bincount(10 * labels + predicted, minlength=100).reshape(10, 10)
        measures = dict(confusion=confusion, predicted=predicted.astype(np.int16))
        if config.method == "baseline":  # an older record
            del measures["predicted"]
        np.savez(run_path(config, tmp_path) / "measures.npz", **measures)
    runs = grid.filled(dataclasses.replace(plan("table2"), runs=tuple(configs)), [], tmp_path)
    found = table2.over_images(runs)
    assert list(found.other) == ["kd"] * 3
    assert list(found.seed) == ["0", "1", "all"]
    assert list(zip(found.sastc, found.others, strict=True)) == [(7, 0), (7, 0), (14, 0)]
    assert list(found.p) == pytest.approx([2 / 2**7, 2 / 2**7, 2 / 2**14])
    assert list(found.p_holm) == pytest.approx([np.nan, np.nan, 2 / 2**14], nan_ok=True)
    assert "on how many just one of two networks" in table2.images_table(runs)
    np.savez(run_path(configs[-1], tmp_path) / "measures.npz", confusion=confusion.T[::-1], predicted=predicted)
    assert list(table2.over_images(runs).seed) == ["0", "all"], "labels that give another confusion are not the run's"
    assert table2.images_table(runs[runs.method == "baseline"]) == ""


SWEEPS = [
    ("table7", sweeps.TABLE7),
    ("fewshot", sweeps.FEWSHOT),
    ("batchsize", sweeps.BATCHSIZE),
    ("beta", sweeps.BETA),
]


@pytest.mark.parametrize(("name", "sweep"), SWEEPS)
@pytest.mark.parametrize("scale", ["quick", "slim", "paper"])
def test_every_cell_of_the_paper_has_a_run_or_a_command(plan, tmp_path, name, sweep, scale):
    panels = sweeps.collect(sweep, plan(name, scale), tmp_path)
    columns = ["method", "value"]
    held = pd.concat([panel.paper for panel in panels])[columns].drop_duplicates()
    printed = sweeps.published(sweep)[columns].drop_duplicates()
    assert sorted(map(str, held.to_numpy())) == sorted(map(str, printed.to_numpy()))
    for panel in panels:
        for cell in panel.paper.itertuples():
            rows, printed = sweeps._cell(panel, cell.method, cell.value)
            # Where the plan has other values for a method, as beta on digits, the paper's are there all the same.
            assert len(rows), (panel.title, cell)
            assert printed == cell.accuracy or np.isnan(cell.accuracy)
            assert set(rows.method) == {cell.method}
            for command in rows.command:
                again = RunConfig.from_arguments(command.removeprefix("python -m sastc train ").split())
                assert again.name in set(rows.run), "the command makes the run whose cell it is"


def test_slim_batches_of_128_are_the_runs_with_the_preset(plan):
    names = {config.name for config in plan("variants", "slim").runs}
    assert {c.seed for c in plan("batchsize", "slim").runs if c.name in names} == {0, 1, 2, 3, 4}
    assert {c.batch_size for c in plan("batchsize", "slim").runs if c.name in names} == {128}


def test_noise_table_puts_every_number_in_its_place(plan, record):
    noise = plan("table7", "slim")
    results = record((*noise.runs, *noise.teachers), point)
    clean, same = sweeps.collect(sweeps.TABLE7, noise, results)
    rows, printed = sweeps._cell(clean, "sastc", 0.5)
    assert sorted(rows.accuracy.dropna()) == [88.0, 88.125, 88.25]
    assert printed == 73.87
    rows, _ = sweeps._cell(same, "sastc", 0.5)
    assert sorted(rows.accuracy.dropna()) == [87.0, 87.125, 87.25]
    rows, _ = sweeps._cell(same, "sastc", 0.0)
    assert sorted(rows.accuracy) == [90.0, 90.125, 90.25, 90.375, 90.5], "without noise both teachers are one"
    rows, printed = sweeps._cell(same, "teacher", 0.5)
    assert list(rows.accuracy.dropna()) == [48.0], "trained on the same labels"
    assert printed == 64.27
    for value in (0.0, 0.1, 0.5):
        rows, printed = sweeps._cell(clean, "teacher", value)
        assert list(rows.accuracy) == [50.0], "the clean teacher at every share"
        assert np.isnan(printed), "which the paper's row is not of"
    for panel in (clean, same):
        rows, _ = sweeps._cell(panel, "baseline", 0.2)
        assert sorted(rows.accuracy.dropna()) == [59.2, 59.325, 59.45]
    page = sweeps.table(sweeps.TABLE7, same)
    assert "87.12 ± 0.12" in page
    assert "paper 73.87" in page
    assert ", ours" not in page, "CIFAR-10 is not the paper's CIFAR-100"
    assert re.search('<td[^>]*><span class="missing"', page), "10 % is not run"


def test_only_the_same_dataset_is_subtracted(plan, record):
    noise = plan("table7", "paper")
    results = record([c for c in noise.runs if c.method == "sastc"], lambda c: 75.0)
    page = sweeps.table(sweeps.TABLE7, sweeps.collect(sweeps.TABLE7, noise, results)[0])
    assert "paper 73.87, ours +1.13" in page
    assert "paper 77.08, ours −2.08" in page


def test_differences_pair_seeds_and_stand_beside_the_papers(plan, record):
    noise = plan("table7", "slim")
    scatter = {0: 0.0, 1: 1.0, 2: 2.0}
    results = record(noise.runs, lambda c: point(c) + (c.method == "sastc") * scatter.get(c.seed, 0.0))
    gaps = sweeps.differences(sweeps.TABLE7, sweeps.collect(sweeps.TABLE7, noise, results)[0])
    row = gaps[(gaps.value == 0.5) & (gaps.other == "kd")].iloc[0]
    assert row.difference.mean == pytest.approx(21.0)  # 20 + mean of 0, 1, 2
    assert row.difference.half == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)
    assert (row.difference.n, row.judgement) == (3, "better")
    assert row.paper == pytest.approx(73.87 - 70.80)
    assert not any(d.n for d in gaps.difference[gaps.value == 0.1]), "not run"
    gaps = sweeps.differences(sweeps.TABLE7, sweeps.collect(sweeps.TABLE7, noise, results)[1])
    assert gaps[(gaps.value == 0.1) & (gaps.other == "teacher")].paper.iloc[0] == pytest.approx(75.49 - 76.51)


def test_sentences_count_and_claim_no_more(plan, record):
    noise = plan("table7")
    results = record((*noise.runs, *noise.teachers), lambda c: point(c) - 100 * (c.method == "sastc") * c.label_noise)
    panel, same = sweeps.collect(sweeps.TABLE7, noise, results)
    lines = sweeps.sentences(sweeps.TABLE7, panel)
    told = "SASTC's mean is above the other students: here at 1 of 3 shares of wrong labels, in the paper at 6 of 6."
    assert lines[0] == f"{panel.title}: {told}"
    assert lines[1] == "SASTC's mean is above the teacher: here at 2 of 3 shares of wrong labels."
    assert "12 of 12 are of too few seeds to judge (n=1)" in lines[2]
    assert "better" not in lines[2]
    lines = sweeps.sentences(sweeps.TABLE7, same)
    assert (
        lines[1] == "SASTC's mean is above the teacher: here at 1 of 2 shares of wrong labels, in the paper at 4 of 6."
    )


def test_a_value_where_a_method_is_missing_is_not_counted(plan, record):
    noise = plan("table7")
    some = [c for c in noise.runs if c.method != "feature_kd" or c.label_noise != 0.2]
    panel = sweeps.collect(sweeps.TABLE7, noise, record(some, point))[0]
    assert (
        "above the other students: here at 2 of 2 shares of wrong labels" in sweeps.sentences(sweeps.TABLE7, panel)[0]
    )


def test_beta_finds_the_optimum_and_what_it_is_not_told_apart_from(plan, record):
    beta = plan("beta", "paper")
    height = {400.0: 93.0, 700.0: 92.95}

    def value(config):
        if config.method != "sastc":
            return 80.0 + config.seed
        return height.get(config.beta, 90.0) + 0.1 * config.seed * (config.beta == 400)

    first, second = sweeps.collect(sweeps.BETA, beta, record([c for c in beta.runs if c.teacher == "resnet19"], value))
    text = sweeps.optimum(first)
    assert "the best of 15 values is 400, not distinguishable from 700;" in text  # 0.15 ± 4.3 * 0.1 / sqrt(3)
    assert "3.10 points between" in text
    two = first._replace(runs=first.runs[(first.runs.value != 700) | (first.runs.seed < 2)])
    told = "400, with too few common seeds to compare it with 700 (n=2); 3.10"
    assert f"the best of 15 values is {told}" in sweeps.optimum(two)
    assert "The paper's optimum for this pair, at T=3, is 1300: +1.12 points over KD, +1.24 over baseline." in text
    assert "fewer than two values are run" in sweeps.optimum(second)
    rows, _ = sweeps._cell(first, "kd", 700.0)
    assert len(rows) == 3, "KD has no β: the same at every value"
    page = sweeps.table(sweeps.BETA, first)
    assert page.count("80.00") + page.count("81.00") == 2, "its row and the baseline's, once"
    assert page.index("without") < page.index("93.10 ± 0.10")
    assert sweeps.shown([first, second]) == [first]


def test_two_seeds_judge_nothing(plan, record):
    noise = plan("table7", "slim")
    results = record(noise.runs, lambda c: point(c) + (c.method == "sastc") * c.seed * (1 + c.label_noise))
    panel = sweeps.collect(sweeps.TABLE7, noise, results)[0]
    two = panel._replace(runs=panel.runs[(panel.runs.seed < 2) | (panel.runs.value != 0.5)])
    said = sweeps.sentences(sweeps.TABLE7, two)[-1]
    assert said.endswith("higher in 6; 3 of 9 are of too few seeds to judge (n=2)."), said


def test_titles_name_the_data_of_the_record_and_the_teacher(plan, record):
    beta = plan("beta", "slim")
    results = record(beta.runs, point)
    facts = {"data": {"name": "CIFAR-10 (JPEG copy)"}, "teacher": {"accuracy": 60.11}}
    for config in beta.runs:
        own = {"data": facts["data"]} if config.method == "baseline" else facts
        write_json(run_path(config, results) / "provenance.json", own)
    panels = sweeps.collect(sweeps.BETA, beta, results)
    assert panels[0].title == "VGG-11 & ResNet-19, T=2, CIFAR-10 (JPEG copy)"
    assert panels[1].title == "VGG-11 & ResNet-32x4, T=2, CIFAR-100", "not run"
    assert "over n seeds. Teacher: 60.11 %. The paper draws" in sweeps.table(sweeps.BETA, panels[0])
    assert sweeps.curve(sweeps.BETA, panels[:1]).axes[0].get_title().startswith("ours, CIFAR-10 (JPEG copy)\n")


def test_curves_draw_means_deviations_and_the_paper(plan, record):
    noise = plan("table7", "slim")
    results = record((*noise.runs, *noise.teachers), point)
    figure = sweeps.curve(sweeps.TABLE7, sweeps.collect(sweeps.TABLE7, noise, results))
    assert [axis.get_title().split("\n")[0] for axis in figure.axes] == ["ours, CIFAR-10"] * 2 + [
        "the paper, CIFAR-100"
    ]
    assert figure.get_figwidth() == 7.0, "three panels, and a page shows no more"
    line = {c.get_label(): c for c in figure.axes[0].containers}["SASTC"]
    assert list(line[0].get_xdata()) == [0.0, 0.2, 0.5]
    assert list(line[0].get_ydata()) == pytest.approx([90.25, 89.325, 88.125])
    top = line[2][0].get_segments()[1][:, 1]  # at 20 %, three seeds
    assert np.ptp(top) == pytest.approx(2 * 0.125), "± the standard deviation"
    printed = {c.get_label(): c for c in figure.axes[2].containers}["Baseline"]
    assert list(printed[0].get_ydata())[-1] == 54.48
    teachers = [{c.get_label(): c for c in axis.containers}["Teacher (ANN)"][0].get_ydata() for axis in figure.axes]
    assert set(teachers[0]) == {50.0}, "clean"
    assert list(teachers[1]) == pytest.approx([50.0, 49.2, 48.0])
    assert list(teachers[2])[-1] == 64.27


def test_labels_of_three_panels_do_not_overlap(plan, record):
    few = plan("fewshot", "slim")
    figure = sweeps.curve(
        sweeps.FEWSHOT, sweeps.collect(sweeps.FEWSHOT, few, record((*few.runs, *few.teachers), point))
    )
    assert len(figure.axes) == 3
    figure.canvas.draw()
    places = [axis.xaxis.label.get_window_extent() for axis in figure.axes]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(places))


def test_pages_stand_without_a_single_run(plan, tmp_path):
    for name, sweep in SWEEPS:
        experiment = plan(name)
        panels = sweeps.shown(sweeps.collect(sweep, experiment, tmp_path))
        sweeps.curve(sweep, panels)
        for panel in panels:
            assert "ours" not in re.findall('class="(.*?)"', sweeps.table(sweep, panel))
            sweeps.differences_table(sweep, panel)
            assert sweeps.sentences(sweep, panel)[0].endswith("not run.")
    figure2.bars(figure2.collect(plan("figure2"), tmp_path)[1])
    table2.overview(table2.collect(plan("table2"), tmp_path))
    table4.chart(table4.collect(plan("table4"), tmp_path))
    plt.close("all")


# The list of what is missing


def test_list_of_commands_holds_each_missing_run_once(plan, record):
    noise = plan("table7")
    results = record(noise.runs[:3], point)
    runs = sweeps.every_run(sweeps.collect(sweeps.TABLE7, noise, results))
    page = html.unescape(grid.not_run(runs, noise))
    commands = re.findall("python -m sastc train [^<\n]*", page)
    assert len(commands) == len(set(commands)) == (~runs.complete).sum() == len(runs) - 3
    assert noise.runs[3].command in commands
    assert noise.runs[0].command not in commands
    planned = len(noise.runs) + len(noise.teachers) - 3
    assert f"Not run: {planned} planned, {len(commands) - planned} more of the paper's cells; their" in page
    assert grid.not_run(runs[runs.complete], noise) == ""


# Table 2


@pytest.mark.parametrize("scale", ["quick", "slim", "paper"])
def test_table_2_holds_every_cell_of_the_paper(plan, tmp_path, scale):
    runs = table2.collect(plan("table2", scale), tmp_path)
    found = list(table2.cells(runs))
    assert len(found) == 13 * 3 * 4
    paper = pd.read_csv(grid.parts.PAPER / "cifar_accuracy.csv")
    teachers = paper[paper.method != "baseline"]
    assert sorted(p for _, m, _, p in found if m != "baseline") == sorted(teachers.accuracy)
    for key, method, own, _ in found:
        assert len(own), (key.to_dict(), method)
        assert set(own.student) == {key.student}
        assert method == "baseline" or set(own.teacher) == {key.teacher}
        assert set(own.timesteps) == {key.timesteps}
        assert scale == "quick" or set(own.dataset) == {key.dataset}
    if scale == "paper":
        assert runs.planned.all(), "the paper's scale plans all of them"


def test_table_2_joins_and_subtracts_on_the_papers_data_alone(plan, record):
    experiment = plan("table2", "slim")
    runs = table2.collect(experiment, record(experiment.runs, lambda c: 90.0 + c.seed))
    data = table2.summary(runs).set_index(["dataset", "student", "teacher", "timesteps", "method"])
    row = data.loc[("cifar10", "vgg11", "resnet19", 2, "sastc")]
    assert (row.accuracy, row.n, row.paper) == (92.0, 5, 93.55)
    assert np.isnan(row.difference), "narrow networks are not the paper's"
    assert data.loc[("cifar10", "vgg11", "wrn28_4", 2, "baseline")].n == 5, "one baseline for all teachers"
    assert data.loc[("cifar100", "vgg11", "vgg13", 2, "baseline")].n == 0, "but not for another dataset"
    page = table2.table(runs)
    assert "paper 93.55<" in page
    assert ", ours" not in page
    assert page.count('<th scope="row">') == 14, "of the thirteenth pair one row is run, and two are not"
    assert page.count('<th scope="row" class="again">VGG-11 &amp; ResNet-19<') == 2, "at three T"
    assert page.index("<details>") > page.index("ResNet-18 &amp; WRN-28-4"), "what is run stands first"
    assert page.count('<th scope="row" class="again">') == 25
    full = table2.collect(plan("table2", "paper"), record(plan("table2", "paper").runs, lambda c: 90.0 + c.seed))
    row = table2.summary(full).set_index(["student", "teacher", "timesteps", "method"])
    assert row.difference["vgg11", "resnet19", 2, "sastc"] == pytest.approx(91.0 - 93.55)
    assert "paper 93.55, ours −2.55" in table2.table(full)
    quick = table2.collect(plan("table2"), record(plan("table2").runs, lambda c: 90.0))
    assert table2.summary(quick).difference.isna().all(), "digits are no CIFAR"


def test_the_default_weights_are_named_for_every_scale():
    assert sweeps.default_weights() == (
        "The default β is 1300 on CIFAR-10 and 700 on CIFAR-100 (the paper's scale), 10 (quarter width), 10 (small "
        "scale), 5 (smoke test)."
    )


def test_the_cells_of_table_2_add_up(plan, record):
    experiment = plan("table2", "slim")
    runs = table2.collect(experiment, record(experiment.runs, lambda c: 90.0))
    line = table2.sentences(runs)[0]
    assert line.startswith("16 of the 132 cells of this table are run, by 64 runs; a baseline counts once")
    assert line.endswith(" All 64 runs that are planned at this scale are run; 116 of the cells are not planned.")
    assert "Not run: 116 more of the paper's cells" in grid.not_run(runs, experiment)
    some = runs.assign(complete=runs.complete & (runs.seed > 0))
    assert " 16 of the 64 runs that are planned at this scale are not run; 116 of" in table2.sentences(some)[0]
    page = table2.table(runs)
    assert "35 rows of the paper of which no distillation is run</summary>" in page
    assert "A baseline has no teacher: where one stands" in page[page.index("<details>") :]


def test_a_line_of_yaml_adds_a_teacher_and_a_number_of_steps(tmp_path, record, request):
    source = (request.config.rootpath / "experiments" / "table2.yaml").read_text()
    lines = (
        "{student: vgg11, teacher: resnet34, method: [kd, sastc]}",
        ("{dataset: cifar10, student: vgg11, teacher: resnet19, method: [baseline, kd, sastc], timesteps: 4}"),
    )
    for scale, line, pair in zip(("quick", "slim"), lines, ("resnet34", "resnet19"), strict=True):
        path = tmp_path / "table2.yaml"
        head, rest = source.split(f"\n{scale}:", 1)
        first, rest = rest.split("\n", 1)
        path.write_text(f"{head}\n{scale}:{first}\n  - {line}\n{rest}")
        experiment = load_experiment(path, scale)
        added = [c for c in experiment.runs if c.teacher == "resnet34" or c.timesteps == 4]
        runs = table2.collect(experiment, record(added, lambda c: 71.0 if c.method == "sastc" else 70.0))
        data = table2.summary(runs)
        assert len(data) == 13 * 12 + 4, "one row more"
        row = data[(data.accuracy == 71.0) & (data.teacher == pair)].iloc[0]
        assert (row.n, row.method) == (1, "sastc")
        assert np.isnan(row.paper)
        page = table2.table(runs)
        assert "71.00" in page
        assert page.count('<th scope="row">') == 14, "a pair more, or a pair of which a part is run"
        assert page.index("71.00") < page.index("<details>")
        names = [label.get_text() for label in table2.overview(runs).axes[0].get_yticklabels()]
        assert len(names) == (14 if scale == "quick" else 13)


def test_overview_draws_gains_over_the_baseline(plan, record):
    experiment = plan("table2", "slim")
    gain = {"baseline": 0.0, "kd": 1.0, "feature_kd": 2.0, "sastc": -3.0}
    figure = table2.overview(
        table2.collect(experiment, record(experiment.runs, lambda c: 80 + gain[c.method] + c.seed))
    )
    axis = figure.axes[0]
    assert axis.get_title() == "T = 2"
    names = [label.get_text() for label in axis.get_yticklabels()]
    y = names.index("VGG-11 & ResNet-19")
    ours = [line.get_xdata()[0] for line in axis.lines if list(line.get_ydata()) == [y - 0.17]]
    theirs = [line.get_xdata()[0] for line in axis.lines if list(line.get_ydata()) == [y + 0.17]]
    assert sorted(ours) == pytest.approx([-3.0, 1.0, 2.0])
    assert sorted(theirs) == pytest.approx([93.01 - 92.48, 93.28 - 92.48, 93.55 - 92.48])


# Figure 2


def test_figure_2_has_20_12_and_16_pairs_and_two_lines_each(plan, tmp_path):
    for scale in ("quick", "slim", "paper"):
        runs, panels = figure2.collect(plan("figure2", scale), tmp_path)
        assert [len(figure2.effects(p)) - 1 for p in panels] == [20, 12, 16]
        for panel in panels:
            pairs = panel.runs[panel.runs.method == "feature_kd"]
            assert len(pairs[["snn_layer", "ann_layer"]].drop_duplicates()) == panel.students * panel.teachers
            assert {"kd", "sastc"} <= set(panel.runs.method)
            assert set(panel.runs.taps) == {"stem_and_stages"}
    assert runs.planned.all()


def test_figure_2_compares_each_pair_with_kd(plan, record):
    slim = plan("figure2", "slim")

    def value(config):
        pair = config.feature_pairs if config.method == "feature_kd" else ""
        better = {"kd": 80.0, "sastc": 81.0}.get(config.method, 78.0)
        return better + {"5-3": 4.0, "2-1": -6.0}.get(pair, 0.0) + 0.1 * config.seed * (config.method == "kd")

    _, (panel, *others) = figure2.collect(slim, record(slim.runs, value))
    data = figure2.effects(panel).set_index(["snn_layer", "ann_layer"])
    assert data.minus_kd[0, 0] == pytest.approx(0.9)
    assert data.minus_kd[5, 3] == pytest.approx(1.9)
    assert data.judgement[5, 3] == "better"
    assert data.minus_kd[2, 1] == pytest.approx(-8.1)
    lines = figure2.sentences(panel)
    assert "19 of 20 pairs are below KD, from −8.10 to +1.90 points" in lines[0]
    assert "interval of 19 of 20 lies below zero" in lines[0]
    assert lines[1].startswith("1 of 20 fixed pairs end above SASTC, which is +0.90 points from KD (better)")
    assert "here this pair ranks 1 of 20, +4.00 points from that pair, 5-" in lines[2]
    assert "layer 2 −3.60" in lines[3]
    assert figure2.sentences(others[0]) == ["(b) ResNet-18 & PyramidNet-20 is not run."]
    figure = figure2.bars([panel, *others])
    assert len(figure.axes) == 1, "what is not run is not drawn"
    bars = [bar for container in figure.axes[0].containers if hasattr(container, "patches") for bar in container]
    assert min(bar.get_height() for bar in bars) == pytest.approx(-8.1)
    assert len(bars) == 20
    drawn = figure2.table(panel)
    assert drawn.count("<td") == 20 + 2, "a cell for each pair, and below them KD and SASTC"
    assert "SASTC: " in drawn.split("for comparison")[1]


# Table 4


def test_table_4_shows_ours_only_on_the_papers_data(plan, record, tmp_path):
    runs = table4.collect(plan("table4"), record(plan("table4").runs, lambda c: 60.0))
    assert runs.empty, "digits have no place in it"
    assert "this book" not in table4.table(runs)
    record(plan("table4", "slim").runs, lambda c: 60.0 + c.seed + 10 * (c.student == "resnet18"))
    for scale in ("quick", "slim"):  # recorded runs stand in it whatever scale the page is of
        runs = table4.collect(plan("table4", scale), tmp_path)
        assert runs.complete.sum() == 16
        page = table4.table(runs)
        assert "SASTC, this book, small-scale runs" in page
        assert {"61.00", "62.00", "72.00"} <= set(re.findall(r"<td>([\d.]+)</td>", page))
        figure = table4.chart(runs)
        assert len(figure.axes[0].containers) == 2
        below = [text.get_text() for text in figure.axes[0].texts if "this book" in text.get_text()]
        assert below == [
            "this book, small-scale runs:\nResNet-18 72.0 ↓ (T = 2)\nVGG-11 62.0, 61.0, 61.0 ↓ (T = 2, 3, 7)"
        ], "far below the axis, so named at its edge"
        assert figure.axes[0].get_xscale() == "log"
        drawn = sorted(y for line in figure.axes[1].lines for y in line.get_ydata())
        paper = pd.read_csv(grid.parts.PAPER / "sota_static.csv")
        assert drawn == sorted(paper.accuracy[paper.dataset == "CIFAR-100"])
    assert "above it stands SPIKE-NORM" in table4.sentences(runs)[2]
    assert "16 runs of ours (small-scale runs; CIFAR-10); an arrow" in table4.sentences(runs)[3]


def test_table_4_keeps_data_and_settings_apart(plan, record):
    experiment = plan("table4", "slim")
    results = record(experiment.runs, lambda c: 60.0 + c.timesteps)
    for config in experiment.runs:
        copy = " (JPEG copy)" * (config.beta == 10)
        facts = {"data": {"name": f"CIFAR-10{copy}"}, "teacher": {"accuracy": 55.0 if copy else 76.0}}
        write_json(run_path(config, results) / "provenance.json", facts)
    runs = table4.collect(experiment, results)
    rows = [re.findall("<t[dh][^>]*>(.*?)</t[dh]>", row) for row in table4.table(runs).split("<tr>")]
    found = {(row[0], row[1], row[4], row[5]) for row in rows if len(row) > 5 and "this book" in row[1]}
    ours = "SASTC, this book, small-scale runs; β {}; teacher: {}.00 %"
    copy = ("CIFAR-10 (JPEG copy)", ours.format(10, 55))
    assert found == {("CIFAR-10", ours.format(30, 76), "2", "62.00"), *((*copy, str(t), f"6{t}.00") for t in (2, 3, 7))}
    (text,) = [text.get_text() for text in table4.chart(runs).axes[0].texts if "this book" in text.get_text()]
    assert "this book, small-scale runs, JPEG copy:\nResNet-18 62.0" in text
    assert "this book, small-scale runs:\nVGG-11 62.0 ↓ (T = 2)" in text


def test_runs_trained_twice_tell_the_scatter_of_rounding(tmp_path):
    assert choices.trained_twice("quick", tmp_path) == ""
    (tmp_path / "quick").mkdir()
    configs = [RunConfig(seed=seed) for seed in range(4)]
    names = [config.name for config in configs]
    twice = pd.DataFrame(dict(run=names, earlier=[50.0, 51.0, 52.0, 9.0], accuracy=[51.0, 51.0, 50.0, 9.0]))
    twice.to_csv(tmp_path / "quick" / "trained_twice.csv", index=False)
    assert choices.trained_twice("quick", tmp_path) == "", "these are shown nowhere"
    for config, value in zip(configs, (51.0, 51.0, 50.0, 10.0), strict=True):  # the last is another by now
        run = made_up_runs.record(tmp_path, config, accuracy=value)
        write_json(run.path / "provenance.json", run.provenance | {"data": {"name": "Digits"}})
    told = choices.trained_twice("quick", tmp_path)
    assert told.startswith("3 runs (smoke test, Digits), of this page and others, were trained twice")
    assert "differ by −0.33 ± 1.53 points (mean and standard deviation, at most 2.00)" in told


def test_the_recorded_ones_hold_the_accuracies_of_the_runs():
    twice = pd.read_csv(report.ROOT / "results/slim/trained_twice.csv")
    assert len(twice) == 18
    for row in twice.itertuples():
        run = Run(report.ROOT / "results/slim" / row.run)
        assert run.metrics["accuracy"] == row.accuracy
        assert run.provenance["commit"].startswith(row.commit)
