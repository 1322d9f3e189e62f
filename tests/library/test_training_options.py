"""Schedules, decay, teachers of another width, and what a run records of single steps and images."""

import dataclasses

import numpy as np
import pytest
import torch

import sastc
from sastc.build import build_model, load_model
from sastc.calibration import LayerDistances, SelfAttentiveCalibration
from sastc.config import ConfigError, RunConfig
from sastc.data import load_dataset
from sastc.records import RunError

T, B, STUDENTS, TEACHERS = 2, 6, [(4, 8, 8), (8, 4, 4)], [(6, 8, 8), (10, 4, 4), (12, 2, 2)]


@pytest.fixture
def run(tmp_path):
    return lambda config, **options: sastc.run(config, results=tmp_path, progress=False, **options)


def weights_of(run):
    return torch.load(run.weights, weights_only=True)


def test_the_triangle_by_hand():
    config = RunConfig(schedule="triangle", epochs=10, learning_rate=0.1, schedule_peak=0.2)
    assert [config.learning_rate_at(e) for e in (0, 1, 2, 6, 10)] == pytest.approx([0, 0.05, 0.1, 0.05, 0])
    assert config.replace(schedule_peak=0.0).learning_rate_at(5) == pytest.approx(0.05)
    assert config.replace(schedule_peak=1.0).learning_rate_at(9) == pytest.approx(0.09)


def test_steps_drop_at_whole_epochs_wherever_in_them():
    config = RunConfig(epochs=10, learning_rate=0.1, milestones=(0.5,))
    assert [config.learning_rate_at(e) for e in (0.5, 4, 4.99, 5, 5.5)] == [0.1, 0.1, 0.1, 0.1 * 0.1, 0.1 * 0.1]


def test_fields_that_came_later_leave_names_at_what_was(tiny):
    was = dict(schedule="steps", nesterov=False, decay_norms=True, teacher_width=0.0, target_scale=())
    same = tiny(**was, attention_steps=0)
    assert same.name == tiny().name
    names = {tiny().name}
    for change in (
        dict(schedule="triangle"),
        dict(nesterov=True),
        dict(decay_norms=False),
        dict(teacher_width=1 / 8),
        dict(target_scale=(1.0, 1.0, 0.5)),
        dict(attention_steps=5),
        dict(attention="easiest"),
    ):
        names.add(tiny(**change).name)
    assert len(names) == 8


def test_the_quarter_scale():
    config = RunConfig(dataset="cifar10", scale="quarter")
    teacher = config.teacher_config()
    assert (config.schedule, config.nesterov, config.decay_norms, config.train_subset) == ("triangle", True, False, 0)
    assert (teacher.schedule, teacher.nesterov, teacher.decay_norms, teacher.width) == ("triangle", True, False, 1 / 4)


def test_nesterov_needs_momentum():
    with pytest.raises(ConfigError, match="nesterov=True: needs momentum > 0"):
        RunConfig(nesterov=True, momentum=0.0)


def test_one_step_at_the_middle_of_the_triangle(run, tiny):
    """A training of one step has the rate of the middle of that step, with the bits of that rate held constant."""
    one = dict(method="baseline", teacher="", epochs=1, batch_size=32, train_subset=32)
    triangle = tiny(**one, schedule="triangle")
    constant = tiny(**one, learning_rate=triangle.learning_rate_at(0.5))
    first, second = run(triangle), run(constant)
    assert first.name != second.name
    assert first.metrics["weights_sha256"] == second.metrics["weights_sha256"]
    assert first.history.learning_rate.tolist() == [triangle.learning_rate_at(0.5)]


def test_momentum_is_nesterovs(run, tiny):
    """By hand: with gradients g1, g2 plain SGD moves by lr g1, then lr (m g1 + g2); Nesterov's looks one step ahead."""
    one = dict(method="baseline", teacher="", epochs=1, batch_size=32, train_subset=32, weight_decay=0.0)
    plain, ahead = (weights_of(run(tiny(**one, nesterov=on))) for on in (False, True))
    torch.manual_seed(tiny().seed)
    start = build_model(tiny(**one), load_dataset("digits", image_size=tiny().image_size), "student").state_dict()
    moved = 0.0
    for name, first in start.items():
        if first.is_floating_point() and "running" not in name:
            # after one step plain momentum has moved by lr g, Nesterov's by lr (1 + m) g
            torch.testing.assert_close(ahead[name] - first, 1.9 * (plain[name] - first), rtol=1e-3, atol=1e-6)
            moved += (plain[name] - first).abs().sum().item()
    assert moved > 0


def test_norms_and_biases_may_go_without_decay(run, tiny):
    options = dict(method="baseline", teacher="", epochs=1, batch_size=32, train_subset=32, momentum=0.0)
    strong = dict(learning_rate=1e-3, weight_decay=500.0)  # one step halves what decays
    with_decay, without = (weights_of(run(tiny(**options, **strong, decay_norms=on))) for on in (True, False))
    norms = [name for name, w in with_decay.items() if w.dim() == 1 and name.endswith("weight")]
    matrices = [name for name, w in with_decay.items() if w.dim() > 1]
    assert norms
    assert matrices
    for name in norms:
        torch.testing.assert_close(with_decay[name], torch.full_like(with_decay[name], 0.5), atol=0.05, rtol=0)
        torch.testing.assert_close(without[name], torch.ones_like(without[name]), atol=0.05, rtol=0)
    assert all(torch.equal(with_decay[name], without[name]) for name in matrices)


@pytest.mark.slow
def test_a_teacher_of_another_width(run, tiny):
    config = tiny(method="kd", teacher_width=1 / 8)
    assert config.teacher_config() == tiny(method="kd", width=1 / 8).teacher_config()
    assert config.teacher_config().width == 1 / 8
    made = run(config)
    student, teacher = load_model(made), load_model(made, "teacher")
    alone = run(config.teacher_config())
    assert sum(p.numel() for p in teacher.parameters()) == alone.metrics["parameters"]
    assert sum(p.numel() for p in student.parameters()) == run(tiny(method="kd")).metrics["parameters"]
    given = dict(method="kd", teacher_run=alone.name)
    run(tiny(**given, teacher_width=1 / 8))
    with pytest.raises(RunError, match=r"was trained with width=0\.125; width=0\.0625 was asked for"):
        run(tiny(**given))


def test_every_test_images_prediction_is_recorded(run, tiny):
    made = run(tiny(method="baseline", teacher=""))
    predicted, confusion = made.measures["predicted"], made.measures["confusion"]
    labels = load_dataset("digits", image_size=tiny().image_size).test.labels.numpy()
    assert predicted.shape == labels.shape
    assert 100 * (predicted == labels).mean() == pytest.approx(made.metrics["last_accuracy"])
    for true in range(10):
        assert np.bincount(predicted[labels == true], minlength=10).tolist() == confusion[true].tolist()


@pytest.mark.slow
def test_single_steps_are_recorded_and_change_nothing(run, tiny):
    config = tiny(train_subset=400, batch_size=16, epochs=1)  # 25 steps
    plain, looked_at = run(config), run(config.replace(attention_steps=3))
    assert plain.metrics["weights_sha256"] == looked_at.metrics["weights_sha256"]
    assert not any(name.startswith("step_") for name in plain.measures)
    m = looked_at.measures
    assert m["step_number"].tolist() == [*range(20), 21, 24]
    shape = (len(m["step_number"]), *m["attention"].shape[1:])
    assert m["step_attention"].shape == m["step_distance"].shape == shape
    np.testing.assert_allclose(m["step_attention"].sum(-1), 1, rtol=1e-5)
    assert m["step_easiest"].shape == shape[:-1]
    assert 0 <= m["step_easiest"].min() <= m["step_easiest"].max() <= 1
    first = looked_at.history.iloc[0]
    names = ["gradient_kd", "gradient_feature", "gradient_projectors", "gradient_cosine"]
    np.testing.assert_allclose(m["step_gradient"][0], first[names].to_numpy(float), rtol=1e-5)


@pytest.mark.slow
def test_single_steps_of_an_interrupted_run(tiny, tmp_path, monkeypatch):
    config = tiny(attention_steps=3, epochs=2)
    whole = sastc.run(config, results=tmp_path / "whole", progress=False)
    evaluate, calls = sastc.train.Trainer._test, []

    def stopped(self):
        calls.append(self.config.method)
        if calls.count("sastc") == 2:
            raise KeyboardInterrupt
        return evaluate(self)

    with monkeypatch.context() as patched:
        patched.setattr(sastc.train.Trainer, "_test", stopped)
        with pytest.raises(KeyboardInterrupt):
            sastc.run(config, results=tmp_path / "again", progress=False)
    again = sastc.run(config, results=tmp_path / "again", progress=False)
    assert again.provenance["resumed_at_epoch"] == 1
    for name in ("step_number", "step_attention", "step_distance", "step_easiest", "step_gradient"):
        np.testing.assert_array_equal(whole.measures[name], again.measures[name])


def features():
    generator = torch.Generator().manual_seed(0)
    spikes = [(torch.rand(T, B, *shape, generator=generator) < 0.3).float() for shape in STUDENTS]
    return spikes, [torch.rand(B, *shape, generator=generator) for shape in TEACHERS]


@pytest.mark.parametrize(("attention", "chosen"), [("easiest", min), ("hardest", max)])
def test_all_weight_on_one_layer(attention, chosen):
    torch.manual_seed(0)
    calibration = SelfAttentiveCalibration(STUDENTS, TEACHERS, B, attention=attention)
    result = calibration(*features())
    for cell, weights in zip(result.distances.flatten(0, -2), result.attention.flatten(0, -2), strict=True):
        row = cell.tolist()
        assert weights.tolist() == [float(a == row.index(chosen(row))) for a in range(len(row))]
    assert not result.attention.requires_grad
    with pytest.raises(ValueError, match=f"distances=None: must be given for attention='{attention}'"):
        calibration.attention(result.student_similarity, result.teacher_similarity)


def test_scaled_targets_by_loops():
    torch.manual_seed(0)
    distances = LayerDistances(STUDENTS, TEACHERS, "all", target_scale=(1.0, 0.5, 2.0)).double()
    spikes, targets = features()
    found = distances([s.double() for s in spikes], [t.double() for t in targets])
    plain = LayerDistances(STUDENTS, TEACHERS, "all").double()
    plain.load_state_dict(distances.state_dict())
    scaled = [f * t.double() for f, t in zip((1.0, 0.5, 2.0), targets, strict=True)]
    torch.testing.assert_close(found, plain([s.double() for s in spikes], scaled))
    assert not torch.allclose(found, plain([s.double() for s in spikes], [t.double() for t in targets]))


@pytest.mark.parametrize("wrong", [(1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 1.0, float("nan"))])
def test_scales_are_one_positive_number_a_layer(wrong):
    with pytest.raises(ValueError, match=r"target_scale=\(1\.0.*must be 3 numbers > 0, one for each"):
        LayerDistances(STUDENTS, TEACHERS, "all", target_scale=wrong)


def test_a_list_of_scales_is_one_setting_and_a_list_of_lists_an_axis():
    from sastc.experiments import expand

    assert [c.target_scale for c in expand({"target_scale": [1, 1, 0.5]})] == [(1.0, 1.0, 0.5)]
    axis = expand({"target_scale": [[], [1, 1, 0.5]]})
    assert [c.target_scale for c in axis] == [(), (1.0, 1.0, 0.5)]
    assert len({c.name for c in axis}) == 2


@pytest.mark.slow
def test_scales_reach_the_training(run, tiny):
    plain, scaled = run(tiny()), run(tiny(target_scale=(1.0, 1.0, 1e-3)))
    assert dataclasses.replace(scaled.config, target_scale=()) == plain.config
    assert (scaled.measures["distance"][:, :, :, 2] < plain.measures["distance"][:, :, :, 2]).all()
