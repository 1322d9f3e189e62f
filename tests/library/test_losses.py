"""Losses (Eq. 6-8) against plain loops, hand-derived gradients and numbers worked out by hand."""

import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sastc.calibration import SelfAttentiveCalibration
from sastc.losses import feature_kd_loss, kd_loss, sastc_loss
from sastc.neurons import LIF


def logits(batch=5, classes=4, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = scale * torch.randn(2, batch, classes, generator=generator, dtype=torch.float64)
    return student, teacher, torch.randint(classes, (batch,), generator=generator)


# Eq. 8


def test_cross_entropy_by_hand():
    # softmax(0, ln 3) = (1/4, 3/4); a teacher that agrees adds nothing
    student = torch.tensor([[0.0, math.log(3)]])
    assert kd_loss(student, student, torch.tensor([1])).item() == pytest.approx(math.log(4 / 3), rel=1e-6)
    assert kd_loss(student, student, torch.tensor([0])).item() == pytest.approx(math.log(4), rel=1e-6)


def test_divergence_by_hand():
    # at temperature 2: teacher (3/4, 1/4), student (1/4, 3/4); KL = 3/4 ln 3 - 1/4 ln 3 = ln(3) / 2; times 2^2
    student, teacher = torch.tensor([[0.0, 2 * math.log(3)]]), torch.tensor([[2 * math.log(3), 0.0]])
    loss = kd_loss(student, teacher, torch.tensor([1]), temperature=2.0, ce_weight=0.0)
    assert loss.item() == pytest.approx(2 * math.log(3), rel=1e-6)


@pytest.mark.parametrize("also", [False, True])
def test_a_class_that_the_teacher_rules_out_adds_nothing(also):
    student, teacher, labels = logits()
    teacher[:, 1] = teacher[2, 0] = -math.inf
    labels = labels.masked_fill(labels == 1, 3)
    if also:
        student[0, 1] = -math.inf
    student.requires_grad_()
    loss = kd_loss(student, teacher, labels, temperature=4.0)
    loss.backward()
    total, copy = 0.0, student.detach().clone().requires_grad_()
    for s, t, y in zip(copy, teacher, labels, strict=True):
        p, log_q = (t / 4).softmax(-1), (s / 4).log_softmax(-1)
        kl = sum(p[i] * (p[i].log() - log_q[i]) for i in range(len(p)) if p[i] > 0)
        total = total + 16 * kl - s.log_softmax(-1)[y]
    (total / len(labels)).backward()
    torch.testing.assert_close(loss, total.detach() / len(labels), rtol=1e-12, atol=0)
    torch.testing.assert_close(student.grad, copy.grad, rtol=1e-12, atol=1e-14)
    assert student.grad.isfinite().all()


def test_logits_that_are_no_distribution_give_nan():
    student, teacher, labels = logits()
    for value in (math.inf, math.nan):
        teacher[1, 2] = value
        assert kd_loss(student, teacher, labels).isnan()
    teacher[1] = -math.inf
    assert kd_loss(student, teacher, labels).isnan()


def test_divergence_runs_from_teacher_to_student():
    # temperature 1: teacher (9/10, 1/10), student (1/2, 1/2): KL(teacher || student) = 0.9 ln 1.8 + 0.1 ln 0.2
    loss = kd_loss(
        torch.zeros(1, 2), torch.tensor([[math.log(9), 0.0]]), torch.tensor([0]), temperature=1.0, ce_weight=0.0
    )
    assert loss.item() == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2), rel=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 1.0},
        {"temperature": 2.5, "kl_weight": 0.3, "ce_weight": 1.7},
        {"kl_weight": 0.0},
        {"ce_weight": 0.0},
    ],
)
def test_kd_against_loops_and_hand_derived_gradient(options):
    student, teacher, labels = logits()
    student.requires_grad_()
    loss = kd_loss(student, teacher, labels, **options)
    (grad,) = torch.autograd.grad(loss, student)
    arrays = student.detach().numpy(), teacher.numpy(), labels.tolist()
    assert loss.item() == pytest.approx(reference.kd_loss(*arrays, **options), rel=1e-5)
    by_hand = reference.kd_loss_backward(*arrays, **options)
    np.testing.assert_allclose(grad, by_hand, rtol=1e-4, atol=1e-6)
    numerical = reference.numerical_gradient(lambda s: reference.kd_loss(s, *arrays[1:], **options), arrays[0])
    np.testing.assert_allclose(by_hand, numerical, atol=1e-8)


def test_kd_keeps_float64():
    student, teacher, labels = logits()
    loss = kd_loss(student, teacher, labels)
    assert loss.dtype == torch.float64
    expected = reference.kd_loss(student.numpy(), teacher.numpy(), labels.tolist())
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_kd_of_half_precision_logits_is_computed_in_float32():
    student, teacher, labels = logits()
    student, teacher = student.bfloat16(), teacher.bfloat16()
    loss = kd_loss(student, teacher, labels)
    assert loss.dtype == torch.float32
    assert loss == kd_loss(student.float(), teacher.float(), labels)


def test_extreme_logits_stay_finite():
    student = torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    loss = kd_loss(student, -student.detach(), torch.tensor([1, 2]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.5, 20), st.floats(-50, 50))
def test_kd_properties(seed, temperature, shift):
    student, teacher, labels = logits(seed=seed)

    def loss(s, t, **weights):
        return kd_loss(s, t, labels, temperature=temperature, **weights).item()

    value = loss(student, teacher)
    near = pytest.approx(value, rel=1e-4, abs=1e-4)
    assert loss(student + shift, teacher - shift) == near  # a softmax does not see a constant
    assert loss(student, teacher, ce_weight=0.0) >= -1e-5  # a divergence is not negative ...
    assert loss(student, student, ce_weight=0.0) == pytest.approx(0, abs=1e-5)  # ... and zero between equals
    assert loss(student, teacher, ce_weight=0.0) + loss(student, teacher, kl_weight=0.0) == near
    classes = torch.from_numpy(np.random.default_rng(seed).permutation(4))  # renaming the classes
    renamed = kd_loss(student[:, classes], teacher[:, classes], classes.argsort()[labels], temperature=temperature)
    assert renamed.item() == near
    twice = kd_loss(student.repeat(2, 1), teacher.repeat(2, 1), labels.repeat(2), temperature=temperature)
    assert twice.item() == near  # a mean over the batch


def test_gradient_size_hardly_depends_on_a_high_temperature():
    """Why the divergence is multiplied by the temperature squared: its gradient tends to a limit."""
    student, teacher, labels = logits()
    student.requires_grad_()
    norms = []
    for temperature in (50.0, 100.0):
        loss = kd_loss(student, teacher, labels, temperature=temperature, ce_weight=0.0)
        norms.append(torch.autograd.grad(loss, student)[0].norm().item())
    assert norms[0] == pytest.approx(norms[1], rel=0.05)


def test_teachers_logits_get_no_gradient():
    student, teacher, labels = logits()
    kd_loss(student.requires_grad_(), teacher.requires_grad_(), labels).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


@pytest.mark.parametrize(
    ("student", "teacher", "options", "message"),
    [
        ((2, 5, 4), (5, 4), {}, r"student_logits=\(2, 5, 4\): must be \(B, N\)"),
        ((5, 4), (1, 4), {}, r"teacher_logits=\(1, 4\): must be \(5, 4\)"),
        ((5, 4), (5, 3), {}, r"teacher_logits=\(5, 3\): must be \(5, 4\)"),
        ((5, 4), (5, 4), {"temperature": 0}, "temperature=0: must be positive"),
        ((5, 4), (5, 4), {"temperature": -4.0}, "temperature=-4.0: must be positive"),
        ((5, 4), (5, 4), {"temperature": math.nan}, "temperature=nan: must be positive"),
    ],
)
def test_bad_input_of_kd_is_named(student, teacher, options, message):
    with pytest.raises(ValueError, match=message):
        kd_loss(torch.zeros(student), torch.zeros(teacher), torch.zeros(5, dtype=torch.int64), **options)


# Eq. 6


def attention_and_distances(steps=2, batch=3, students=2, teachers=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = steps, batch, students, teachers
    attention = torch.randn(shape, generator=generator, dtype=torch.float64).softmax(-1)
    return attention, torch.rand(shape, generator=generator, dtype=torch.float64)


def test_sastc_by_hand():
    # T=1, B=2, S=1, A=2: instance 0: 3/4 * 4 + 1/4 * 8 = 5; instance 1: 1/2 * 2 + 1/2 * 4 = 3
    attention = torch.tensor([[[[0.75, 0.25]], [[0.5, 0.5]]]])
    distances = torch.tensor([[[[4.0, 8.0]], [[2.0, 4.0]]]])
    assert sastc_loss(attention, distances, "sum").item() == 8
    assert sastc_loss(attention, distances, "mean").item() == 4
    assert sastc_loss(attention, distances).item() == 4


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_sastc_against_loops(reduction):
    attention, distances = attention_and_distances()
    attention.requires_grad_()
    distances.requires_grad_()
    loss = sastc_loss(attention, distances, reduction)
    arrays = attention.detach().numpy(), distances.detach().numpy()
    assert loss.item() == pytest.approx(reference.sastc_loss(*arrays, reduction), rel=1e-12)
    grads = torch.autograd.grad(loss, (attention, distances))
    share = 1 / (2 * 3 * 2) if reduction == "mean" else 1.0
    np.testing.assert_allclose(grads[0], share * arrays[1])
    np.testing.assert_allclose(grads[1], share * arrays[0])


def test_sum_is_the_mean_times_steps_batch_and_student_layers():
    # batch 128, 3 steps, 4 student layers: 1536, however many teacher layers there are
    for teachers in (1, 3, 5):
        both = attention_and_distances(3, 128, 4, teachers)
        assert (sastc_loss(*both, "sum") / sastc_loss(*both)).item() == pytest.approx(1536)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.tuples(*[st.integers(1, 3)] * 4))
def test_sastc_properties(seed, shape):
    attention, distances = attention_and_distances(*shape, seed=seed)
    loss = sastc_loss(attention, distances).item()
    assert distances.min().item() - 1e-12 <= loss <= distances.max().item() + 1e-12  # weights are an average
    assert sastc_loss(attention, torch.ones_like(distances)).item() == pytest.approx(1)
    assert sastc_loss(attention, torch.zeros_like(distances)).item() == 0
    order = np.random.default_rng(seed).permutation(shape[3])
    assert sastc_loss(attention[..., order], distances[..., order]).item() == pytest.approx(loss)
    assert sastc_loss(attention, 3 * distances).item() == pytest.approx(3 * loss)


def test_unknown_reduction():
    with pytest.raises(ValueError, match=r"reduction='median'.*mean.*sum"):
        sastc_loss(*attention_and_distances(), "median")


def test_sastc_of_other_shapes_is_an_error():
    attention, distances = attention_and_distances()
    with pytest.raises(ValueError, match=r"distances=\(2, 3, 1, 4\): must be \(2, 3, 2, 4\)"):
        sastc_loss(attention, distances[:, :, :1])
    with pytest.raises(ValueError, match=r"attention=\(2, 2, 4\): must be \(T, B, S, A\)"):
        sastc_loss(attention.mean(1), distances)


# Feature KD


def test_feature_kd_by_hand_and_against_loops():
    distances = torch.tensor([[[1.0, 3.0]], [[5.0, 7.0]]])  # (T=2, B=1, P=2)
    assert feature_kd_loss(distances).item() == 4
    _, full = attention_and_distances()
    pairs = [(0, 1), (1, 3), (1, 0)]
    chosen = torch.stack([full[:, :, s, a] for s, a in pairs], -1)
    assert feature_kd_loss(chosen).item() == pytest.approx(reference.feature_kd_loss(full.numpy(), pairs), rel=1e-12)


# Eq. 7, through the neuron


def test_total_loss_reaches_the_input_current_through_the_spikes():
    """d(L_KD + beta L_SASTC)/dI: differences of the reference up to the spikes, then the hand-derived recursion."""
    beta, shape = 7.0, (2, 3, 2, 2, 2)
    torch.manual_seed(0)
    module = SelfAttentiveCalibration([shape[2:]], [(2, 2, 2), (3, 1, 1)], 3, resize_student="avg").double()
    readout = torch.randn(4, 8, dtype=torch.float64)
    teacher = [torch.randn(3, 2, 2, 2, dtype=torch.float64), torch.randn(3, 3, 1, 1, dtype=torch.float64)]
    teacher_logits, labels = torch.randn(3, 4, dtype=torch.float64), torch.tensor([0, 3, 1])
    current = torch.randn(shape, dtype=torch.float64).add(0.6).requires_grad_()

    spikes = LIF(gamma=1.0)(current)
    ours = module([spikes], teacher)
    student_logits = (spikes.flatten(2) @ readout.T).mean(0)
    loss = kd_loss(student_logits, teacher_logits, labels) + beta * sastc_loss(ours.attention, ours.distances)
    (grad,) = torch.autograd.grad(loss, current)

    def mlp(m):
        return tuple(p.detach().numpy() for p in (m[0].weight, m[0].bias, m[2].weight, m[2].bias))

    def projector(p):
        return tuple(w.detach().numpy() for w in (p.conv3.weight, p.norm.weight, p.norm.bias, p.conv1.weight))

    queries, keys = [mlp(m) for m in module.query], [mlp(m) for m in module.key]
    projectors = {
        pair: projector(p) for pair, p in zip(module.distances.pairs, module.distances.projectors, strict=True)
    }
    targets = [f.numpy() for f in teacher]

    def total(o):
        students = np.stack([[reference.similarity(step)] for step in o])
        teachers = np.stack([reference.similarity(f) for f in targets])
        weights = reference.attention(students, teachers, queries, keys, width=3)
        dists = reference.distances([o], targets, projectors, resize_student="avg")
        averaged = sum(step.reshape(3, -1) @ readout.numpy().T for step in o) / len(o)
        kd = reference.kd_loss(averaged, teacher_logits.numpy(), labels.tolist())
        return kd + beta * reference.sastc_loss(weights, dists)

    fired, _ = reference.lif_layer(current.detach().numpy())
    np.testing.assert_array_equal(fired, spikes.detach().numpy())
    assert loss.item() == pytest.approx(total(fired), rel=1e-6)
    grad_spikes = reference.numerical_gradient(total, fired)
    expected, _ = reference.lif_layer_backward(grad_spikes, current.detach().numpy(), name="triangle", gamma=1.0)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-6)
