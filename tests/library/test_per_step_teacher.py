"""A teacher that sees each step's frame: everything that compares layers pairs step t with step t."""

import numpy as np
import pytest
import torch
from calibrations import BATCH, STEPS, STUDENTS, TEACHERS, agree, as_numpy, build, features, loops, weights_of

from sastc.calibration import LayerDistances, SelfAttentiveCalibration, layer_pairs
from sastc.cka import linear_cka
from sastc.models import create_model
from sastc.sam import class_activation_map
from sastc.stm import pair_mismatch


def sequences(seed=0, steps=STEPS):
    """Student features, and teacher features that differ from step to step."""
    student, _ = features(steps=steps, seed=seed)
    frames = [features(seed=seed + 1 + t)[1] for t in range(steps)]
    return student, [torch.stack(layer) for layer in zip(*frames, strict=True)]


@pytest.mark.parametrize(
    "options",
    [{}, {"sim_norm": "row_l2", "qk_norm": False}, {"small_student": "upsample_student", "resize_student": "avg"}],
)
def test_calibration_against_the_loop_of_each_step(options):
    module = build(**options)
    student, teacher = sequences()
    attention, distances, students, teachers = module(student, teacher)
    assert teachers.shape == (STEPS, len(TEACHERS), BATCH, BATCH)
    for t in range(STEPS):
        step = [as_numpy(f[t : t + 1] for f in student), as_numpy(f[t] for f in teacher)]
        expected = loops(*step, weights_of(module), BATCH, **options)
        agree((attention[t : t + 1], distances[t : t + 1], students[t : t + 1], teachers[t]), expected)


def test_a_teacher_that_repeats_itself_is_a_static_teacher():
    module = build().eval()
    student, teacher = features()
    repeated = [f.expand(STEPS, *f.shape) for f in teacher]
    static, each = module(student, teacher), module(student, repeated)
    for ours, theirs in zip(each[:3], static[:3], strict=True):
        torch.testing.assert_close(ours, theirs)
    for t in range(STEPS):
        torch.testing.assert_close(each.teacher_similarity[t], static.teacher_similarity)
    for source in ("uniform", "random", "cka"):
        control = build(attention=source)
        torch.testing.assert_close(control(student, repeated).attention, control(student, teacher).attention)


def test_gradients_reach_the_student_and_not_the_teacher():
    module = build()
    student, teacher = sequences()
    for f in (*student, *teacher):
        f.requires_grad_()
    attention, distances, _, _ = module(student, teacher)
    gradients = torch.autograd.grad((attention * distances)[1].sum(), student, retain_graph=True)
    for gradient in gradients:
        assert (gradient[0] == 0).all()
        assert (gradient[1] != 0).any()
    (attention * distances).sum().backward()
    assert all(f.grad is None for f in teacher)


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_fixed_pairs(norm):
    torch.manual_seed(0)
    pairs = layer_pairs("one_to_one", len(STUDENTS), len(TEACHERS))
    module = LayerDistances(STUDENTS, TEACHERS, pairs, target_norm=norm).double().eval()
    student, teacher = sequences(3)
    whole = module(student, teacher)
    if norm == "layer":
        teacher = [(f - f.mean()) / f.std() for f in teacher]
        module.target_norm = "none"
    for t in range(STEPS):
        alone = module([f[t : t + 1] for f in student], [f[t] for f in teacher])
        torch.testing.assert_close(whole[t : t + 1], alone)


def test_mismatch_and_cka():
    similarities = SelfAttentiveCalibration.similarities(*sequences(5, steps=3))
    for measure in (pair_mismatch, linear_cka):
        whole = measure(*similarities)
        assert whole.shape == (3, len(STUDENTS), len(TEACHERS))
        for t in range(3):
            alone = measure(similarities[0][t : t + 1], similarities[1][t])
            np.testing.assert_allclose(whole[t : t + 1], alone, rtol=1e-10, atol=1e-12)
        assert not torch.allclose(whole[0], measure(similarities[0][:1], similarities[1][1])[0])


def test_steps_must_agree():
    student, teacher = sequences()
    with pytest.raises(ValueError, match=r"time steps \[1, 2\], must be equal"):
        build()(student, [f[:1] for f in teacher])
    students, teachers = SelfAttentiveCalibration.similarities(student, teacher)
    with pytest.raises(ValueError, match=r"must be \(T, S, B, B\) and \(A, B, B\) or \(T, A, B, B\)"):
        linear_cka(students, teachers[:1])


def test_activation_map_of_a_teacher_that_sees_each_frame():
    torch.manual_seed(0)
    x = torch.rand(3, 4, 2, 16, 16)
    options = dict(in_channels=2, image_size=16, width=0.1)
    model = create_model("resnet18", "relu", frames="per_step", **options).eval()
    found = class_activation_map(model, x, class_index=2)
    each = torch.stack([class_activation_map(model, frame, class_index=2) for frame in x])
    torch.testing.assert_close(found, each.mean(0) / 3)  # the logit is a mean over three frames
    assert found.max() > 0
