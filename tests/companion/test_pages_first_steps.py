"""The first steps of attention: numbers by hand on made-up records."""

import math

import numpy as np
import pytest
from made_up_runs import plan, record

from companion.pages import first_steps
from sastc.config import RunConfig

HIGH = math.exp(2) / (math.exp(2) + 1)  # two teacher layers, unit length


def config(**changes):
    return RunConfig(**dict(student="vgg11", method="sastc", attention_steps=5, beta=10.0) | changes)


def arrays(weights, easiest, gradients):
    """One student layer, one step in time, two teacher layers: the larger weight, and the share, at steps 0, 1, 20."""
    eta = np.array([[[[w, 1 - w]]] for w in weights])
    return dict(
        step_number=np.array([0, 1, 20]), step_attention=eta, step_easiest=np.array(easiest).reshape(3, 1, 1),
        step_gradient=np.array([[kd, feature, 0.0, 0.0] for kd, feature in gradients]),
    )  # fmt: skip


@pytest.fixture
def rows(tmp_path):
    configs = [config(), config(beta=1300.0, qk_norm=False), config(target_scale=(1.0, 0.05)), config(seed=1)]
    half = (0.5 + HIGH) / 2
    record(tmp_path, configs[0], arrays([0.5, half, HIGH], [0.25, 0.5, 1.0], [(2.0, 1.0), (1.0, 1.0), (1.0, 3.0)]))
    record(tmp_path, configs[1], arrays([0.5, 0.6, 0.9], [0.5, 0.5, 0.75], [(1.0, 40.0), (1.0, 1.0), (0.0, 3.0)]))
    record(tmp_path, configs[2], dict(attention=np.ones((1, 1, 1, 2))))  # its steps were not recorded
    return first_steps.collect(plan(*configs), tmp_path)


def test_steps_by_hand(rows):
    first, second, without, missing = rows.itertuples()
    assert (first.first, first.last, first.recorded) == (0.25, 1.0, 3)
    assert (first.low, first.quarter, first.three_quarters, first.high) == (0.25, 0.375, 0.75, 1.0)
    assert first.top == pytest.approx(1.0)
    assert first.bound == 20
    assert (first.pull_first, first.pull_last) == (0.5, 3.0)
    assert math.isnan(second.bound), "0.9 of 1 is four fifths of the way from 0.5"
    assert second.pull_first == 40
    assert math.isnan(second.pull_last), "no KD gradient to compare with"
    assert math.isnan(without.steps)
    assert not missing.complete


def test_the_way_to_the_bound_begins_at_uniform(rows):
    found = first_steps.steps(first_steps.Run(rows.path[0]))
    assert list(found.top) == pytest.approx([0.0, 0.5, 1.0])


def test_settings_in_words(rows):
    assert first_steps.names(rows) == [
        "β = 10", "β = 1300, no unit length", "β = 10, teacher layer 2 scaled to 0.05", "β = 10",
    ]  # fmt: skip


def test_the_answer_tells_every_setting_apart_and_all_of_its_steps(rows):
    line = first_steps.answer(rows)
    assert line == (
        "Smoke test, up to step 21, 1 run of each setting: how often attention is largest on the easiest layer "
        "(chance: 50 %). "
        "β = 10: 25 to 100 % of cases over all recorded steps, with quartiles of 38 and 75 %; the largest weights "
        "reach their bound in 1 of 1, at step 21; at the first step the gradient of β times the feature loss is 0.5 "
        "times KD's. "
        "β = 1300, no unit length: 50 to 75 % of cases over all recorded steps, with quartiles of 50 and 62 %; a "
        "weight has no bound below 1, and the largest come up to 80 % of the way to it; at the first step the gradient "
        "of β times the feature loss is 40 times KD's."
    )
    larger = rows.assign(scale=["slim", "quick", "quick", "quick"])
    assert first_steps.answer(larger).startswith("Small-scale runs, up to step 21, 1 run of each")
    assert "Smoke test" not in first_steps.answer(larger)
    assert "come up to 40 % of the way from uniform to their bound; at" in first_steps.answer(
        larger.assign(bound=math.nan, top=0.4)
    )
    narrow = larger.assign(teacher_width=0.5, width=1.0)
    assert "Small-scale runs with a teacher of 0.5 times the width, up to" in first_steps.answer(narrow)
    assert first_steps.answer(rows.assign(steps=math.nan)) == "No run has recorded its first steps."


def test_figure_and_table_have_every_run(rows):
    drawing = first_steps.curves(rows)
    assert [line.get_label() for line in drawing.axes[0].lines] == ["β = 10", "β = 1300, no unit length"]
    assert drawing.axes[0].lines[0].get_xydata() == pytest.approx(np.array([[1, 25], [2, 50], [21, 100]]))
    first_steps.figures.plt.close(drawing)
    page = first_steps.table(rows)
    assert page.count("<tr>") == 1 + len(rows)
    assert "<td>21</td>" in page
    assert "<td>25 to 100 %</td>" in page
    assert "<td>38 to 75 %</td>" in page
    assert rows.run[0] in page
