"""Losses of the field's distillation methods: hand-computed values, slow references, gradients, half precision."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import reference_methods as slow
import torch
from reference import numerical_gradient
from torch import nn

from sastc.losses import kd_loss, of_one_size, soft_divergence, step_cross_entropy
from sastc.methods.bkdsnn import bkdsnn_loss, blurred_distance, restorer, weighted_soft_loss
from sastc.methods.ckdsnn import (
    activation_divergence,
    ckdsnn_loss,
    class_activation,
    smoothed_divergence,
)
from sastc.methods.fitnet import hint_loss, regressor
from sastc.methods.hta_kl import head, hta_divergence, hta_kl_loss
from sastc.methods.kdsnn import channel_map, kdsnn_loss, response_loss, squared_distance
from sastc.methods.lasnn import attention_distance, lasnn_loss, lasnn_mse_loss
from sastc.methods.seal_kd import error_aware, seal_kd_loss, step_weights
from sastc.methods.semckd import calibration, semckd_loss
from sastc.methods.sp import similarity_distance, sp_loss
from sastc.methods.tet import tet_loss
from sastc.methods.tet_kd import tet_kd_loss
from sastc.methods.tser import tser_loss
from sastc.methods.twd import self_target, twd_loss

DOUBLE = torch.float64


def near(value, digits=6):
    return pytest.approx(value, abs=0.6 * 10**-digits)


# One image, two steps, three classes, two channels of 2x2: every value below was worked out apart from this code


def worked_example(copies=1, dtype=DOUBLE):
    """The check case; with several copies of its image every loss must be the same."""

    def of(values, dim):
        return torch.tensor(values, dtype=dtype).repeat_interleave(copies, dim)

    first, second = [[[1, 0], [0, 1]], [[0, 0], [1, 1]]], [[[1, 0], [1, 1]], [[0, 1], [0, 1]]]
    features = of([[first], [second]], 1)
    z = of([[[1, 0, -1]], [[0, 0.5, 1]]], 1)
    return SimpleNamespace(
        z=z,
        mean=z.mean(0),
        u=of([[2, 0.5, -1]], 0),
        y=torch.zeros(copies, dtype=torch.long),
        features=features,
        rate=features.mean(0),
        target=of([[[[1.5, 0], [0.5, 2]], [[0, 1], [0.5, 1]]]], 0),
        weight=torch.tensor([[1, 0.5], [0, 1], [-1, 0]], dtype=dtype),
        noise=of([[0.5, -1, 0.3]], 0),
        kept=torch.ones(copies, 2, dtype=torch.bool),
        same=nn.ModuleDict({"align": nn.Identity(), "restore": nn.Identity()}),
    )


@pytest.mark.parametrize("copies", [1, 2])
class TestHandComputed:
    """Values worked out with numpy, apart from this library."""

    def test_shared_terms(self, copies):
        case = worked_example(copies)
        assert kd_loss(case.mean, case.u, case.y, kl_weight=0.0).item() == near(0.869338)
        assert soft_divergence(case.mean, case.u, 4.0).item() == near(0.501010)
        assert step_cross_entropy(case.z, case.y).item() == near(1.043938)

    def test_control_arms(self, copies):
        case = worked_example(copies)
        assert tet_loss(case.z, case.y)["loss"].item() == near(1.043938)
        assert tet_kd_loss(case.z, case.u, case.y)["loss"].item() == near(1.043938 + 0.501010)

    def test_kdsnn(self, copies):
        case = worked_example(copies)
        arguments = case.mean, case.u, case.y, case.rate, case.target, nn.Identity()
        parts = kdsnn_loss(*arguments)
        assert parts["feature_loss"].item() == near(0.15625)
        assert parts["loss"].item() == near(0.869338 + 0.501010 + 2e-3 * 0.15625)
        assert kdsnn_loss(*arguments, pooled=False)["feature_loss"].item() == near(1.5)
        assert response_loss(case.mean, case.u, case.y)["loss"].item() == near(0.537842)

    def test_lasnn(self, copies):
        case = worked_example(copies)
        parts = lasnn_loss(case.mean, case.u, case.y, [case.rate], [case.target])
        assert parts["feature_loss"].item() == near(0.005721)
        assert 4 * parts["feature_loss"].item() == near(0.022885)
        mse = lasnn_mse_loss(case.mean, case.y, [case.rate], [case.target], [nn.Identity()])
        assert mse["loss"].item() == near(0.869338 + 7e-5 * 1.5)

    def test_bkdsnn(self, copies):
        case = worked_example(copies)
        soft, w = weighted_soft_loss(case.mean, case.u, case.y)
        assert w.tolist() == [near(0.972746)] * copies
        assert soft.item() == near(4.072068)
        parts = bkdsnn_loss(case.mean, case.u, case.y, case.rate, case.target, case.same, case.kept)
        assert parts["feature_loss"].item() == near(0.15625)
        assert parts["loss"].item() == near(4.941719)
        case.kept[:, 0] = False
        assert blurred_distance(case.rate, case.target, case.same, case.kept).item() == near(1.015625)

    def test_twd(self, copies):
        case = worked_example(copies)
        for target, own, loss in (("correct", 0.367381, 1.362106), ("mean", 0.185897, 1.271364)):
            parts = twd_loss(case.z, case.u, case.y, target=target)
            assert parts["teacher_divergence"].item() == near(0.672389)
            assert parts["self_divergence"].item() == near(own)
            assert parts["loss"].item() == near(loss)
        wrong = case.z[1:]
        assert self_target(wrong, case.y).eq(0).all()
        assert soft_divergence(wrong, self_target(wrong, case.y), 3.0).item() == near(0.083141)

    def test_tser(self, copies):
        case = worked_example(copies)
        parts = tser_loss(case.z, case.u, case.y)
        assert parts["teacher_divergence"].item() / 16 == near(0.042975)
        assert parts["entropy"].item() == near(1.085762)
        assert parts["loss"].item() == near(0.757194)
        parts = tser_loss(case.z, case.u, case.y, temperature=1.0)
        assert parts["teacher_divergence"].item() == near(0.485732)
        assert parts["entropy"].item() == near(0.926293)

    def test_ckdsnn(self, copies):
        case = worked_example(copies)
        rest = case.features, case.target, case.weight, case.noise
        released = ckdsnn_loss(case.mean, case.u, case.y, *rest, variant="released")
        assert released["activation_divergence"].item() == near(0.002059)
        assert released["smoothed_divergence"].item() == near(0.466624)
        assert released["loss"].item() == near(1.338021)
        ours = ckdsnn_loss(case.mean, case.u, case.y, *rest)
        assert ours["activation_divergence"].item() / 4 == near(0.002059)
        assert ours["smoothed_divergence"].item() == near(0.443397)
        assert ours["loss"].item() == near(1.320970)
        paper = ckdsnn_loss(case.mean, case.u, case.y, *rest, variant="paper")
        assert paper["activation_divergence"].item() == near(0.104343)

    def test_seal_kd(self, copies):
        case = worked_example(copies)
        parts = seal_kd_loss(case.z, case.u, case.y)
        assert parts["error_aware"].item() == near(0.098796)
        assert parts["error_aware"].item() == near((0.075614 + 0.121978) / 2)
        assert parts["temporal"].item() == near(0.739808)
        assert parts["loss"].item() == near(1.214186)
        third = torch.tensor([2.0, 0, 0], dtype=DOUBLE).expand(1, copies, 3)
        z = torch.cat([case.z, third])
        a = step_weights(z)
        for t, j, value in ((0, 1, 0.419734), (1, 0, 0.461761), (2, 0, 0.542732)):
            assert a[t, j].tolist() == [near(value)] * copies
        assert seal_kd_loss(z, case.u, case.y)["temporal"].item() == near(0.422023)

    def test_hta_kl(self, copies):
        case = worked_example(copies)
        for tau, value in ((1.0, 0.363457), (4.0, 0.031668)):
            divergence, w = hta_divergence(case.mean, case.u, tau)
            assert w.tolist() == [near(0.5)] * copies
            assert divergence.tolist() == [near(value)] * copies
        assert hta_kl_loss(case.mean, case.u, case.y)["loss"].item() == near(1.376023)
        u = torch.tensor([[0.6, 0.5, -1]], dtype=DOUBLE).repeat(copies, 1)
        divergence, w = hta_divergence(torch.tensor([[0.5, 0.25, 0]], dtype=DOUBLE).repeat(copies, 1), u, 1.0)
        assert w.tolist() == [near(0.174953)] * copies
        assert divergence.tolist() == [near(0.102449)] * copies


# Random inputs against loops over numbers

SHAPES = {"some": (3, 4, 5), "one step": (1, 4, 5), "one image": (2, 1, 4), "two classes": (4, 3, 2)}
SHAPES |= {"one of each": (1, 1, 2), "many classes": (2, 2, 30)}


def drawn(shape="some", seed=0, answers="mixed", dtype=DOUBLE):
    """Random inputs. `answers` says whether the steps classify rightly: "mixed", "right" or "wrong"."""
    steps, batch, classes = SHAPES[shape]
    generator = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(size, generator=generator, dtype=DOUBLE)

    z, u = 2 * normal(steps, batch, classes), 3 * normal(batch, classes)
    y = torch.randint(classes, (batch,), generator=generator)
    if answers != "mixed":  # move each step's largest logit to, or away from, the label
        top = z.argmax(-1, keepdim=True)
        place = (y if answers == "right" else (y + 1) % classes).view(1, -1, 1).expand_as(top)
        largest, other = z.gather(-1, top), z.gather(-1, place)
        z = z.scatter(-1, top, other).scatter(-1, place, largest)
    features = (normal(steps, batch, 3, 4, 4) > 0.3).to(DOUBLE)
    values = dict(z=z, u=u, features=features, target=normal(batch, 2, 2, 2).relu(), noise=normal(batch, classes))
    values |= dict(weight=normal(classes, 2))
    return SimpleNamespace(y=y, **{name: value.to(dtype) for name, value in values.items()})


def arrays(case):
    return case.z.numpy(), case.u.numpy(), case.y.tolist()


def weights_of(layer):
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


# method: (loss of logits, its reference, which stops gradients where the loss does)
STOPS = {"twd", "twd, mean", "seal_kd", "hta_kl", "hta_kl, masked", "wsld"}
LOGIT_LOSSES = {
    "tet": (lambda z, u, y: tet_loss(z, y)["loss"], lambda z, u, y: slow.tet(z, y)),
    "tet_kd": (lambda z, u, y: tet_kd_loss(z, u, y)["loss"], slow.tet_kd),
    "twd": (lambda z, u, y: twd_loss(z, u, y)["loss"], slow.twd),
    "twd, mean": (
        lambda z, u, y: twd_loss(z, u, y, alpha=0.7, beta=1.5, temperature=2.0, target="mean")["loss"],
        lambda z, u, y, at=None: slow.twd(z, u, y, 0.7, 1.5, 2.0, "mean", at),
    ),
    "tser": (lambda z, u, y: tser_loss(z, u, y)["loss"], slow.tser),
    "tser, soft labels": (
        lambda z, u, y: tser_loss(z, u, y, alpha=0.7, gamma=0.01, temperature=5.0, soft_labels=True)["loss"],
        lambda z, u, y: slow.tser(z, u, y, 0.7, 0.01, 5.0, True),
    ),
    "seal_kd": (lambda z, u, y: seal_kd_loss(z, u, y)["loss"], slow.seal_kd),
    "hta_kl": (lambda z, u, y: hta_kl_loss(z.mean(0), u, y)["loss"], slow.hta_kl),
    "hta_kl, masked": (
        lambda z, u, y: hta_kl_loss(z.mean(0), u, y, weight=0.3, temperature=1.5, share=0.8, masked=True)["loss"],
        lambda z, u, y, at=None: slow.hta_kl(z, u, y, 0.3, 1.5, 0.8, True, at),
    ),
    "response": (
        lambda z, u, y: response_loss(z.mean(0), u, y)["loss"],
        lambda z, u, y: slow.kd(z, u, y, ce_weight=0.1, kl_weight=0.9),
    ),
    "wsld": (lambda z, u, y: weighted_soft_loss(z.mean(0), u, y)[0], slow.wsld),
}


@pytest.mark.parametrize("answers", ["mixed", "right", "wrong"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LOGIT_LOSSES)
def test_losses_of_logits_against_loops(name, shape, answers):
    loss, expected = LOGIT_LOSSES[name]
    case = drawn(shape, len(name), answers)
    assert loss(case.z, case.u, case.y).item() == pytest.approx(expected(*arrays(case)), rel=1e-9)


@pytest.mark.parametrize("answers", ["mixed", "wrong"])
@pytest.mark.parametrize("shape", ["some", "one step", "two classes"])
@pytest.mark.parametrize("name", LOGIT_LOSSES)
def test_gradients_of_logits_against_difference_quotients(name, shape, answers):
    loss, expected = LOGIT_LOSSES[name]
    case = drawn(shape, 1 + len(name), answers)
    z, u = case.z.clone().requires_grad_(), case.u.clone().requires_grad_()
    loss(z, u, case.y).backward()
    assert u.grad is None or not u.grad.any()  # the teacher learns nothing
    at, u, y = arrays(case)
    fixed = dict(at=at) if name in STOPS else {}
    quotients = numerical_gradient(lambda x: expected(x, u, y, **fixed), at)
    np.testing.assert_allclose(z.grad, quotients, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", LOGIT_LOSSES)
def test_losses_of_logits_in_half_precision(name):
    loss, _ = LOGIT_LOSSES[name]
    case = drawn(dtype=torch.bfloat16)
    value = loss(case.z.float(), case.u.float(), case.y)
    assert value.dtype == torch.float32
    if name in ("hta_kl", "hta_kl, masked", "response", "wsld"):  # of the mean that the network hands over
        return
    half = case.z.requires_grad_()
    out = loss(half, case.u, case.y)
    assert out.dtype == torch.float32
    assert out == value
    out.backward()
    assert half.grad.dtype == torch.bfloat16
    assert half.grad.isfinite().all()


@pytest.mark.parametrize("name", LOGIT_LOSSES)
@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_flat_and_extreme_logits_stay_finite(name, scale):
    loss, _ = LOGIT_LOSSES[name]
    case = drawn(dtype=torch.float32)
    z, u = (scale * case.z).requires_grad_(), scale * case.u.sign()
    value = loss(z, u, case.y)
    value.backward()
    assert value.isfinite()
    assert z.grad.isfinite().all()


def test_teacher_divergence_leaves_out_what_the_teacher_rules_out():
    case = drawn()
    case.u[:, 1] = -math.inf
    z = case.z.clone().requires_grad_()
    value = soft_divergence(z, case.u, 4.0)
    value.backward()
    expected = slow.mean(slow.soft(x, u, 4.0) for step in case.z.tolist() for x, u in zip(step, case.u.tolist()))  # noqa: B905
    assert value.item() == pytest.approx(expected, rel=1e-9)
    assert z.grad.isfinite().all()


def test_soft_divergence_is_the_term_of_eq_8():
    case = drawn()
    expected = kd_loss(case.z[0], case.u, case.y, temperature=2.5, ce_weight=0.0)
    torch.testing.assert_close(soft_divergence(case.z[0], case.u, 2.5), expected, rtol=1e-12, atol=0)


class TestTwd:
    def test_no_gradient_through_what_the_steps_learn_of_each_other(self):
        case = drawn()
        z = case.z.clone().requires_grad_()
        for kind in ("correct", "mean"):
            assert not self_target(z, case.y, kind).requires_grad

    def test_correct_steps_alone(self):
        z = torch.tensor([[[3.0, 0]], [[0, 1]], [[1, 0]]])
        assert self_target(z, torch.tensor([0])).tolist() == [[2, 0]]
        assert self_target(z, torch.tensor([1])).tolist() == [[0, 1]]
        assert self_target(z, torch.tensor([0]), "mean").tolist() == [[pytest.approx(4 / 3), pytest.approx(1 / 3)]]

    def test_unknown_target(self):
        with pytest.raises(ValueError, match="self_target='all': must be one of correct, mean"):
            self_target(torch.zeros(1, 1, 2), torch.tensor([0]), "all")

    def test_is_tser_without_entropy_where_neither_has_its_own_term(self):
        case = drawn()
        one = twd_loss(case.z, case.u, case.y, alpha=1.0, beta=0.0, temperature=4.0)["loss"]
        other = 2 * tser_loss(case.z, case.u, case.y, alpha=0.5, gamma=0.0)["loss"]
        torch.testing.assert_close(one, other)


class TestSealKd:
    def test_error_aware_logits_by_hand(self):
        z = torch.tensor([[[1.0, 4, 2]], [[5, 4, 2]]], requires_grad=True)
        u = torch.tensor([[7.0, 3, 1]])
        student, teacher = error_aware(z, u, torch.tensor([0]))
        assert student.tolist() == [[[1, 1, 2]], [[5, 4, 2]]]
        assert teacher.tolist() == [[[3, 3, 1]], [[7, 3, 1]]]
        (student * torch.tensor([10.0, 100, 1000])).sum().backward()
        assert z.grad.tolist() == [[[110, 0, 1000]], [[10, 100, 1000]]]  # nothing for the wrong logit

    def test_two_classes_leave_a_wrong_step_nothing(self):
        case = drawn("two classes", answers="wrong")
        assert seal_kd_loss(case.z, case.u, case.y)["error_aware"].item() == pytest.approx(0, abs=1e-12)

    def test_two_steps_learn_each_other(self):
        case = drawn("one image")
        assert step_weights(case.z)[..., 0].tolist() == [[0, 1], [1, 0]]
        expected = (soft_divergence(case.z[0], case.z[1], 3.0) + soft_divergence(case.z[1], case.z[0], 3.0)) / 2
        torch.testing.assert_close(seal_kd_loss(case.z, case.u, case.y)["temporal"], expected)

    def test_weights(self):
        z = drawn("two classes").z.requires_grad_()
        a = step_weights(z)
        assert not a.requires_grad
        torch.testing.assert_close(a.sum(1), torch.ones(4, 3, dtype=DOUBLE))
        assert not a.diagonal().any()

    def test_one_step(self):
        case = drawn("one step")
        assert seal_kd_loss(case.z, case.u, case.y)["temporal"] == 0


class TestHtaKl:
    def test_head(self):
        p = torch.tensor([[0.1, 0.6, 0.3], [0.2, 0.25, 0.55], [0.3, 0.1, 0.6]])
        assert head(p).tolist() == [[False, True, False], [False, False, True], [False, False, True]]
        assert head(p, 0.92).tolist() == [[False, True, True], [False, True, True], [True, False, True]]
        assert head(torch.tensor([0.2, 0.25, 0.25, 0.3]), 0.6).tolist() == [False, True, False, True]  # ties: the first

    def test_equal_distributions(self):
        case = drawn()
        z = case.u.clone().requires_grad_()
        divergence, w = hta_divergence(z, case.u)
        divergence.sum().backward()
        assert divergence.abs().max() < 1e-12
        assert not w.any()
        assert z.grad.abs().max() < 1e-9

    def test_weight_is_at_most_half_for_a_head_of_one(self):
        case = drawn("many classes")
        u = case.u.clone()
        u[:, 3] += 30
        _, w = hta_divergence(case.z[0], u, 1.0)
        assert (w <= 0.5 + 1e-9).all()
        assert not w.requires_grad


# Losses of maps


class TestKdsnn:
    @pytest.mark.parametrize("pooled", [True, False])
    @pytest.mark.parametrize("shape", ["some", "one of each"])
    def test_against_loops(self, pooled, shape):
        case = drawn(shape)
        torch.manual_seed(0)
        r = channel_map(3, 2).double()
        value = squared_distance(case.features.mean(0), case.target, r, pooled)
        expected = slow.squared(case.features.numpy(), case.target.numpy(), weights_of(r), pooled)
        assert value.item() == pytest.approx(expected, rel=1e-9)
        parts = kdsnn_loss(
            case.z.mean(0), case.u, case.y, case.features.mean(0), case.target, r, alpha=0.3, pooled=pooled
        )
        assert parts["loss"].item() == pytest.approx(slow.kd(*arrays(case)) + 0.3 * expected, rel=1e-9)

    def test_equal_channels_need_no_convolution(self):
        assert not list(channel_map(4, 4).parameters())
        assert sum(p.numel() for p in channel_map(512, 256).parameters()) == 131_328

    @pytest.mark.parametrize("pooled", [True, False])
    def test_gradients(self, pooled):
        case, r = drawn(), channel_map(3, 2).double()
        rate, target = case.features.mean(0).requires_grad_(), case.target.requires_grad_()
        assert torch.autograd.gradcheck(lambda x, *w: squared_distance(x, target, r, pooled), (rate, *r.parameters()))
        squared_distance(rate, target, r, pooled).backward()
        assert target.grad is None
        assert all(p.grad.any() for p in (rate, *r.parameters()))


class TestLasnn:
    @pytest.mark.parametrize("shape", ["some", "one of each"])
    def test_against_loops(self, shape):
        case = drawn(shape)
        rates, targets = [case.features.mean(0)] * 2, [case.target, case.target.roll(1, -1)]
        features = case.features.numpy()
        expected = sum(slow.attention_distance(features, t.numpy()) for t in targets)
        assert attention_distance(rates, targets).item() == pytest.approx(expected, rel=1e-9)
        parts = lasnn_loss(case.z.mean(0), case.u, case.y, rates, targets, beta=3.0)
        assert parts["loss"].item() == pytest.approx(slow.kd(*arrays(case)) + 3 * expected, rel=1e-9)
        maps = [channel_map(3, 2).double() for _ in range(2)]
        both = zip(targets, maps, strict=True)
        expected = sum(slow.squared(features, t.numpy(), weights_of(r), pooled=False) for t, r in both)
        parts = lasnn_mse_loss(case.z.mean(0), case.y, rates, targets, maps, alpha=0.5)
        hard = slow.kd(*arrays(case), kl_weight=0.0)
        assert parts["loss"].item() == pytest.approx(hard + 0.5 * expected, rel=1e-9)

    def test_gradients(self):
        case = drawn()
        rate, target = (0.1 + case.features.mean(0)).requires_grad_(), case.target.requires_grad_()
        assert torch.autograd.gradcheck(lambda x: attention_distance([x], [target]), (rate,))
        attention_distance([rate], [target]).backward()
        assert target.grad is None

    def test_dead_layers(self):
        case = drawn()
        rate = torch.zeros(4, 3, 4, 4, requires_grad=True)
        value = attention_distance([rate], [torch.zeros(4, 2, 2, 2)])
        value.backward()
        assert value == 0
        assert rate.grad.isfinite().all()
        assert attention_distance([rate], [case.target.float()]).isfinite()

    def test_size_and_scale_of_a_map_do_not_matter(self):
        case = drawn()
        value = attention_distance([case.features.mean(0)], [case.target])
        torch.testing.assert_close(attention_distance([case.features.mean(0)], [7 * case.target]), value)


class TestBkdsnn:
    @pytest.mark.parametrize("channels", [3, 2])
    @pytest.mark.parametrize("shape", ["some", "one of each"])
    def test_against_loops(self, channels, shape):
        case = drawn(shape)
        torch.manual_seed(0)
        modules = restorer(channels, 2).double()
        features = case.features[:, :, :channels]
        kept = torch.rand(len(case.y), 2, generator=torch.Generator().manual_seed(1)) > 0.4
        align = None if channels == 2 else weights_of(modules["align"])
        first, _, second = modules["restore"]
        given = features.numpy(), case.target.numpy(), align, weights_of(first), weights_of(second), kept.numpy()
        expected = slow.blurred(*given)
        value = blurred_distance(features.mean(0), case.target, modules, kept)
        assert value.item() == pytest.approx(expected, rel=1e-9)
        rest = features.mean(0), case.target, modules, kept
        parts = bkdsnn_loss(case.z.mean(0), case.u, case.y, *rest, alpha=0.7, wsld_weight=0.3)
        hard = slow.kd(*arrays(case), kl_weight=0.0)
        assert parts["loss"].item() == pytest.approx(hard + 0.3 * slow.wsld(*arrays(case)) + 0.7 * expected, rel=1e-9)

    def test_size(self):
        assert sum(p.numel() for p in restorer(512, 512).parameters()) == 4_719_616
        assert sum(p.numel() for p in restorer(256, 256).parameters()) == 1_180_160

    def test_gradients(self):
        case, modules = drawn(), restorer(3, 2).double()
        rate, target = case.features.mean(0).requires_grad_(), case.target.requires_grad_()
        kept = torch.tensor([[True, False]] * 4)
        weights = tuple(modules.parameters())
        assert torch.autograd.gradcheck(lambda x, *w: blurred_distance(x, target, modules, kept), (rate, *weights))
        blurred_distance(rate, target, modules, kept).backward()
        assert target.grad is None
        assert not modules["align"].weight.grad[1].any()  # a blanked channel teaches its convolution nothing
        assert rate.grad.any()

    def test_easy_images_count_less(self):
        u = torch.tensor([[4.0, 0], [4.0, 0]])
        _, w = weighted_soft_loss(torch.tensor([[9.0, 0], [-3.0, 0]]), u, torch.tensor([0, 0]))
        assert w[0] < 0.01
        assert w[1] > 0.99
        assert not w.requires_grad


class TestCkdsnn:
    @pytest.mark.parametrize("variant", ["per_image", "paper", "released"])
    @pytest.mark.parametrize("shape", ["some", "one of each", "two classes"])
    def test_against_loops(self, variant, shape):
        case = drawn(shape)
        f, g, weight = (x.numpy() for x in (case.features, case.target, case.weight))
        saliency = class_activation(case.target, case.weight, case.u)
        expected = slow.samd(f, g, weight, case.u.numpy(), variant)
        assert activation_divergence(case.features, saliency, variant).item() == pytest.approx(expected, rel=1e-9)
        noisy = slow.nld(case.z.numpy(), case.u.numpy(), case.noise.numpy(), variant)
        value = smoothed_divergence(case.z.mean(0), case.u, case.noise, variant)
        assert value.item() == pytest.approx(noisy, rel=1e-9)
        rest = case.features, case.target, case.weight, case.noise
        parts = ckdsnn_loss(case.z.mean(0), case.u, case.y, *rest, beta=0.3, gamma=0.7, variant=variant)
        hard = slow.kd(*arrays(case), kl_weight=0.0)
        assert parts["loss"].item() == pytest.approx(hard + 0.3 * expected + 0.7 * noisy, rel=1e-9)

    @pytest.mark.parametrize("variant", ["per_image", "paper", "released"])
    def test_gradients(self, variant):
        case = drawn()
        generator = torch.Generator().manual_seed(3)
        features = torch.rand(case.features.shape, generator=generator, dtype=DOUBLE).requires_grad_()
        target, weight, u = (x.requires_grad_() for x in (case.target, case.weight, case.u))

        def samd(f):
            return activation_divergence(f, class_activation(target, weight, u), variant)

        def nld(z):
            return smoothed_divergence(z, u, case.noise, variant)

        assert torch.autograd.gradcheck(samd, (features,))
        z = case.z.mean(0).requires_grad_()
        assert torch.autograd.gradcheck(nld, (z,))  # through mean and deviation too
        (samd(features) + nld(z)).backward()
        assert all(x.grad is None for x in (target, weight, u))
        assert features.grad.any()

    def test_released_maps_bound_their_divergence(self):
        for seed in range(20):
            case = drawn(seed=seed)
            saliency = class_activation(100 * case.target, case.weight, case.u)
            assert activation_divergence(case.features, saliency, "released") <= 1 / 8

    def test_dead_maps(self):
        features = torch.zeros(2, 3, 4, 2, 2, requires_grad=True)
        value = activation_divergence(features, torch.zeros(3, 2, 2))
        value.backward()
        assert value.item() == pytest.approx(0, abs=1e-9)
        assert features.grad.isfinite().all()

    def test_teacher_without_a_linear_layer_behind_the_average(self):
        case = drawn()
        with pytest.raises(ValueError, match=r"weight=\(5, 8\): must be \(N, 2\)"):
            class_activation(case.target, torch.zeros(5, 8), case.u)


class TestOfTheAnnLine:
    def test_fitnet(self):
        case = drawn()
        torch.manual_seed(0)
        r = regressor(3, 2).double()
        rate = case.features.mean(0)
        parts = hint_loss(case.z.mean(0), case.u, case.y, rate, case.target, r, beta=2.0)
        x = slow.convolve(slow.shrink(rate.numpy(), 2, 2), *weights_of(r[0]))
        x = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
        expected = ((np.maximum(x, 0) - case.target.numpy()) ** 2).mean()
        assert parts["feature_loss"].item() == pytest.approx(expected, rel=1e-9)
        assert parts["loss"].item() == pytest.approx(slow.kd(*arrays(case)) + 2 * expected, rel=1e-9)

    def test_sp(self):
        case = drawn()
        rate, target = case.features.mean(0).requires_grad_(), case.target.requires_grad_()
        expected = slow.sp(case.features.numpy(), target.detach().numpy())
        assert similarity_distance(rate, target).item() == pytest.approx(expected, rel=1e-9)
        parts = sp_loss(case.z.mean(0), case.u, case.y, rate, target)
        assert parts["loss"].item() == pytest.approx(slow.kd(*arrays(case)) + 3000 * expected, rel=1e-9)
        assert torch.autograd.gradcheck(lambda x: similarity_distance(x, target), (rate,))
        parts["loss"].backward()
        assert target.grad is None

    def test_sp_of_one_image(self):
        case = drawn("one of each")
        assert similarity_distance(0.1 + case.features.mean(0), 0.1 + case.target).item() == pytest.approx(0, abs=1e-12)

    def test_semckd_is_sastc_at_one_step(self):
        case = drawn()
        torch.manual_seed(0)
        module = calibration([(3, 4, 4)] * 2, [(2, 2, 2)] * 3, 4).double()
        rates, targets = [case.features[0], case.features[1]], [case.target, 2 * case.target, case.target.roll(1, 0)]
        parts = semckd_loss(case.z.mean(0), case.u, case.y, rates, targets, module)
        found = module([x.unsqueeze(0) for x in rates], targets)
        expected = 0.0
        for b in range(4):
            for s in range(2):
                for a, target in enumerate(targets):
                    size = torch.nn.functional.adaptive_avg_pool2d(rates[s], 2)
                    projected = module.distances.projectors[3 * s + a](size.unsqueeze(0))[0, b]
                    error = (projected - target[b]).square().mean()
                    expected += found.attention[0, b, s, a].item() * error.item() / 8
        assert parts["feature_loss"].item() == pytest.approx(expected, rel=1e-9)
        assert parts["loss"].item() == pytest.approx(slow.kd(*arrays(case)) + 400 * expected, rel=1e-9)


def test_losses_of_maps_under_autocast():
    case = drawn(dtype=torch.float32)
    mean, rate = case.z.mean(0).bfloat16(), case.features.mean(0).bfloat16()
    target, u, y = case.target.bfloat16(), case.u.bfloat16(), case.y
    module = calibration([(3, 4, 4)], [(2, 2, 2)], 4)
    with torch.autocast("cpu", torch.bfloat16):
        losses = [
            kdsnn_loss(mean, u, y, rate, target, channel_map(3, 2)),
            kdsnn_loss(mean, u, y, rate, target, channel_map(3, 2), pooled=False),
            lasnn_loss(mean, u, y, [rate], [target]),
            lasnn_mse_loss(mean, y, [rate], [target], [channel_map(3, 2)]),
            bkdsnn_loss(mean, u, y, rate, target, restorer(3, 2), torch.ones(4, 2, dtype=torch.bool)),
            ckdsnn_loss(mean, u, y, case.features.bfloat16(), target, case.weight, case.noise),
            hint_loss(mean, u, y, rate, target, regressor(3, 2)),
            sp_loss(mean, u, y, rate, target),
            semckd_loss(mean, u, y, [rate], [target], module),
        ]
    for parts in losses:
        assert {value.dtype for value in parts.values()} == {torch.float32}
        assert all(value.isfinite() for value in parts.values())


def test_maps_of_one_size():
    x, y = torch.arange(16.0).view(1, 1, 4, 4), torch.arange(4.0).view(1, 1, 2, 2)
    assert of_one_size(x, y)[0].tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    assert of_one_size(x, y)[1] is y
    assert [tuple(z.shape[-2:]) for z in of_one_size(torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 2, 4))] == [(2, 2)] * 2
