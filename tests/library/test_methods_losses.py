"""Losses of the field's distillation methods: hand-computed values, slow references, gradients, half precision."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import reference_methods as slow
import torch
import torch.nn.functional as F
from reference import numerical_gradient
from torch import nn

from sastc.config import ConfigError, RunConfig
from sastc.losses import exact, kd_loss, of_one_size, soft_divergence, step_cross_entropy, time_mean
from sastc.methods import Batch
from sastc.methods.bkdsnn import BKDSNN, restore, restorer, weighted_soft_loss
from sastc.methods.ckdsnn import CKDSNN, activation_divergence, class_activation, smoothed_divergence
from sastc.methods.fitnet import FitNet
from sastc.methods.hta_kl import HTAKL, head, hta_divergence
from sastc.methods.kd import KD
from sastc.methods.kdsnn import KDSNN, channel_map, squared_distance
from sastc.methods.lasnn import LaSNN, attention_distance
from sastc.methods.lasnn_mse import LaSNNMSE
from sastc.methods.seal_kd import SeAlKD, error_aware, step_weights
from sastc.methods.semckd import SemCKD
from sastc.methods.sp import SP, similarity_distance
from sastc.methods.tet import TET
from sastc.methods.tet_kd import TETKD
from sastc.methods.tser import TSER
from sastc.methods.twd import TWD, self_target
from sastc.models import create_model

DOUBLE = torch.float64


def near(value, digits=6):
    return pytest.approx(value, abs=0.6 * 10**-digits)


def loss_of(method, case, trained=None, **fields):
    """The parts of a method's loss of a case, as the trainer asks for them."""
    given = dict(temperature=4.0, kl_weight=1.0, ce_weight=1.0, feature_pairs="one_to_one", mlp_dim=4)
    method.config = SimpleNamespace(**(given | fields))
    teacher = SimpleNamespace(last_map=lambda x: x, classifier=SimpleNamespace(parameters=lambda: [case.weight]))
    return method.losses(
        Batch(
            labels=case.y,
            logits=case.mean,
            features=case.features,
            cross_entropy=F.cross_entropy(exact(case.mean), case.y),
            step_logits=case.z,
            teacher_logits=case.u,
            teacher_features=case.targets,
            trained=trained,
            teacher=teacher,
        )
    )


def built(method, case, **fields):
    """A method's module for the layers of a case, and what it returns for them."""
    method.config = SimpleNamespace(**(dict(feature_pairs="one_to_one", mlp_dim=4) | fields))
    torch.manual_seed(0)
    shapes = ([tuple(x.shape[-3:]) for x in layers] for layers in (case.features, case.targets))
    module = method.build(*shapes).to(case.z.dtype)
    torch.manual_seed(1)
    return module, module(case.features, case.targets, None)


# One image, two steps, three classes, two channels of 2x2: every value below was worked out apart from this code


def worked_example(copies=1):
    """The check case; with several copies of its image every loss must be the same."""

    def of(values, dim):
        return torch.tensor(values, dtype=DOUBLE).repeat_interleave(copies, dim)

    first, second = [[[1, 0], [0, 1]], [[0, 0], [1, 1]]], [[[1, 0], [1, 1]], [[0, 1], [0, 1]]]
    z = of([[[1, 0, -1]], [[0, 0.5, 1]]], 1)
    return SimpleNamespace(
        z=z,
        mean=z.mean(0),
        u=of([[2, 0.5, -1]], 0),
        y=torch.zeros(copies, dtype=torch.long),
        features=[of([[first], [second]], 1)],
        targets=[of([[[[1.5, 0], [0.5, 2]], [[0, 1], [0.5, 1]]]], 0)],
        weight=torch.tensor([[1, 0.5], [0, 1], [-1, 0]], dtype=DOUBLE),
        noise=of([[0.5, -1, 0.3]], 0),
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
        assert loss_of(TET(), case)["loss"].item() == near(1.043938)
        assert loss_of(TETKD(), case)["loss"].item() == near(1.043938 + 0.501010)

    def test_kdsnn(self, copies):
        case = worked_example(copies)
        rate = case.features[0].mean(0)
        parts = loss_of(KDSNN(), case, rate.mean((-2, -1), keepdim=True))
        assert parts["feature_loss"].item() == near(0.15625)
        assert parts["loss"].item() == near(0.869338 + 0.501010 + 2e-3 * 0.15625)
        assert loss_of(KDSNN(pooled=False), case, rate)["feature_loss"].item() == near(1.5)
        response = loss_of(KD(), case, ce_weight=0.1, kl_weight=0.9)  # KDSNN's response-based variant
        assert response["loss"].item() == near(0.537842)

    def test_lasnn(self, copies):
        case = worked_example(copies)
        parts = loss_of(LaSNN(), case)
        assert parts["feature_loss"].item() == near(0.005721)
        assert 4 * parts["feature_loss"].item() == near(0.022885)
        assert parts["loss"].item() == near(0.869338 + 0.501010 + 1000 * 0.005721, digits=3)
        _, distance = built(LaSNNMSE(), case)
        assert distance.item() == near(1.5)
        assert loss_of(LaSNNMSE(), case, distance)["loss"].item() == near(0.869338 + 7e-5 * 1.5)

    def test_bkdsnn(self, copies):
        case = worked_example(copies)
        soft, w = weighted_soft_loss(case.mean, case.u, case.y)
        assert w.tolist() == [near(0.972746)] * copies
        assert soft.item() == near(4.072068)
        modules = nn.ModuleDict({"align": nn.Identity(), "restore": nn.Identity()})
        kept = torch.ones(copies, 2, dtype=torch.bool)
        parts = loss_of(BKDSNN(), case, restore(modules, case.features[0].mean(0), kept))
        assert parts["feature_loss"].item() == near(0.15625)
        assert parts["loss"].item() == near(4.941719)
        kept[:, 0] = False
        parts = loss_of(BKDSNN(), case, restore(modules, case.features[0].mean(0), kept))
        assert parts["feature_loss"].item() == near(1.015625)

    def test_twd(self, copies):
        case = worked_example(copies)
        for target, own, loss in (("correct", 0.367381, 1.362106), ("mean", 0.185897, 1.271364)):
            parts = loss_of(TWD(target=target), case)
            assert parts["teacher_divergence"].item() == near(0.672389)
            assert parts["self_divergence"].item() == near(own)
            assert parts["loss"].item() == near(loss)
        wrong = case.z[1:]
        assert self_target(wrong, case.y).eq(0).all()
        assert soft_divergence(wrong, self_target(wrong, case.y), 3.0).item() == near(0.083141)

    def test_tser(self, copies):
        case = worked_example(copies)
        parts = loss_of(TSER(), case)
        assert parts["teacher_divergence"].item() / 16 == near(0.042975)
        assert parts["entropy"].item() == near(1.085762)
        assert parts["loss"].item() == near(0.757194)
        parts = loss_of(TSER(tau=1.0), case)
        assert parts["teacher_divergence"].item() == near(0.485732)
        assert parts["entropy"].item() == near(0.926293)

    def test_ckdsnn(self, copies, monkeypatch):
        case = worked_example(copies)
        monkeypatch.setattr(torch, "randn", lambda *_, **__: case.noise)
        released = loss_of(CKDSNN(version="released"), case)
        assert released["activation_divergence"].item() == near(0.002059)
        assert released["smoothed_divergence"].item() == near(0.466624)
        assert released["loss"].item() == near(1.338021)
        ours = loss_of(CKDSNN(), case)
        assert ours["activation_divergence"].item() / 4 == near(0.002059)
        assert ours["smoothed_divergence"].item() == near(0.443397)
        assert ours["loss"].item() == near(1.320970)
        paper = loss_of(CKDSNN(version="paper"), case)
        assert paper["activation_divergence"].item() == near(0.104343)

    def test_seal_kd(self, copies):
        case = worked_example(copies)
        parts = loss_of(SeAlKD(), case)
        assert parts["error_aware"].item() == near(0.098796)
        assert parts["error_aware"].item() == near((0.075614 + 0.121978) / 2)
        assert parts["temporal"].item() == near(0.739808)
        assert parts["loss"].item() == near(1.214186)
        case.z = torch.cat([case.z, torch.tensor([2.0, 0, 0], dtype=DOUBLE).expand(1, copies, 3)])
        a = step_weights(case.z)
        for t, j, value in ((0, 1, 0.419734), (1, 0, 0.461761), (2, 0, 0.542732)):
            assert a[t, j].tolist() == [near(value)] * copies
        assert loss_of(SeAlKD(), case)["temporal"].item() == near(0.422023)

    def test_hta_kl(self, copies):
        case = worked_example(copies)
        for tau, value in ((1.0, 0.363457), (4.0, 0.031668)):
            divergence, w = hta_divergence(case.mean, case.u, tau)
            assert w.tolist() == [near(0.5)] * copies
            assert divergence.tolist() == [near(value)] * copies
        assert loss_of(HTAKL(), case)["loss"].item() == near(1.376023)
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
    spikes = (normal(steps, batch, 3, 4, 4) > 0.3).to(dtype)
    values = dict(z=z, mean=z.mean(0), u=u, weight=normal(classes, 2), noise=normal(batch, classes))
    target = normal(batch, 2, 2, 2).relu().to(dtype)
    values = {name: value.to(dtype) for name, value in values.items()}
    return SimpleNamespace(y=y, features=[spikes], targets=[target], **values)


def over(case, z):
    """The case with other step logits."""
    return SimpleNamespace(**(vars(case) | dict(z=z, mean=z.mean(0))))


def arrays(case):
    return case.z.numpy(), case.u.numpy(), case.y.tolist()


def weights_of(layer):
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


# loss of logits, its reference, and whether a part of the student's logits is kept from the gradient
LOGIT_LOSSES = {
    "tet": (TET(), lambda z, u, y: slow.tet(z, y), False),
    "tet_kd": (TETKD(), slow.tet_kd, False),
    "twd": (TWD(), slow.twd, True),
    "twd, mean": (
        TWD(teacher_weight=0.7, self_weight=1.5, tau=2.0, target="mean"),
        lambda z, u, y, at=None: slow.twd(z, u, y, 0.7, 1.5, 2.0, "mean", at),
        True,
    ),
    "tser": (TSER(), slow.tser, False),
    "tser, soft labels": (
        TSER(teacher_weight=0.7, entropy_weight=0.01, tau=5.0, soft_labels=True),
        lambda z, u, y: slow.tser(z, u, y, 0.7, 0.01, 5.0, True),
        False,
    ),
    "seal_kd": (SeAlKD(), slow.seal_kd, True),
    "hta_kl": (HTAKL(), slow.hta_kl, True),
    "hta_kl, masked": (
        HTAKL(weight=0.3, tau=1.5, head_share=0.8, masked=True),
        lambda z, u, y, at=None: slow.hta_kl(z, u, y, 0.3, 1.5, 0.8, True, at),
        True,
    ),
}


@pytest.mark.parametrize("answers", ["mixed", "right", "wrong"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LOGIT_LOSSES)
def test_losses_of_logits_against_loops(name, shape, answers):
    method, expected, _ = LOGIT_LOSSES[name]
    case = drawn(shape, len(name), answers)
    assert loss_of(method, case)["loss"].item() == pytest.approx(expected(*arrays(case)), rel=1e-9)


@pytest.mark.parametrize("answers", ["mixed", "wrong"])
@pytest.mark.parametrize("shape", ["some", "one step", "two classes"])
@pytest.mark.parametrize("name", LOGIT_LOSSES)
def test_gradients_of_logits_against_difference_quotients(name, shape, answers):
    method, expected, stops = LOGIT_LOSSES[name]
    case = drawn(shape, 1 + len(name), answers)
    z = case.z.clone().requires_grad_()
    case.u.requires_grad_()
    loss_of(method, over(case, z))["loss"].backward()
    assert case.u.grad is None or not case.u.grad.any()  # the teacher learns nothing
    case.u.requires_grad_(False)
    at, u, y = arrays(case)
    fixed = dict(at=at) if stops else {}
    quotients = numerical_gradient(lambda x: expected(x, u, y, **fixed), at)
    np.testing.assert_allclose(z.grad, quotients, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", LOGIT_LOSSES)
def test_losses_of_logits_in_half_precision(name):
    method, _, _ = LOGIT_LOSSES[name]
    case = drawn(dtype=torch.bfloat16)
    case.z.requires_grad_()
    case.mean = case.z.float().mean(0).bfloat16()
    parts = loss_of(method, case)
    assert {part.dtype for part in parts.values()} == {torch.float32}
    same = SimpleNamespace(**(vars(case) | {name: getattr(case, name).float() for name in ("z", "mean", "u")}))
    assert parts["loss"] == loss_of(method, same)["loss"]
    parts["loss"].backward()
    assert case.z.grad.dtype == torch.bfloat16
    assert case.z.grad.isfinite().all()


@pytest.mark.parametrize("name", LOGIT_LOSSES)
@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_flat_and_extreme_logits_stay_finite(name, scale):
    method, _, _ = LOGIT_LOSSES[name]
    case = drawn(dtype=torch.float32)
    z = (scale * case.z).requires_grad_()
    case.u = scale * case.u
    value = loss_of(method, over(case, z))["loss"]
    value.backward()
    assert value.isfinite()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("answers", ["mixed", "right", "wrong"])
@pytest.mark.parametrize("shape", SHAPES)
def test_weighted_soft_loss_against_loops(shape, answers):
    case = drawn(shape, 7, answers)
    z = case.z.clone().requires_grad_()
    value, _ = weighted_soft_loss(z.mean(0), case.u, case.y)
    assert value.item() == pytest.approx(slow.wsld(*arrays(case)), rel=1e-9)
    value.backward()
    at, u, y = arrays(case)
    quotients = numerical_gradient(lambda x: slow.wsld(x, u, y, at=at), at)
    np.testing.assert_allclose(z.grad, quotients, rtol=1e-5, atol=1e-8)


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

    def test_is_tser_without_entropy_where_neither_has_its_own_term(self):
        case = drawn()
        one = loss_of(TWD(teacher_weight=1.0, self_weight=0.0, tau=4.0), case)["loss"]
        other = 2 * loss_of(TSER(teacher_weight=0.5, entropy_weight=0.0), case)["loss"]
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
        assert loss_of(SeAlKD(), case)["error_aware"].item() == pytest.approx(0, abs=1e-12)

    def test_two_steps_learn_each_other(self):
        case = drawn("one image")
        assert step_weights(case.z)[..., 0].tolist() == [[0, 1], [1, 0]]
        expected = (soft_divergence(case.z[0], case.z[1], 3.0) + soft_divergence(case.z[1], case.z[0], 3.0)) / 2
        torch.testing.assert_close(loss_of(SeAlKD(), case)["temporal"], expected)

    def test_weights(self):
        z = drawn("two classes").z.requires_grad_()
        a = step_weights(z)
        assert not a.requires_grad
        torch.testing.assert_close(a.sum(1), torch.ones(4, 3, dtype=DOUBLE))
        assert not a.diagonal().any()

    def test_one_step(self):
        assert loss_of(SeAlKD(), drawn("one step"))["temporal"] == 0


class TestHtaKl:
    def test_head(self):
        p = torch.tensor([[0.1, 0.6, 0.3], [0.2, 0.25, 0.55], [0.3, 0.1, 0.6]])
        assert head(p).tolist() == [[False, True, False], [False, False, True], [False, False, True]]
        assert head(p, 0.92).tolist() == [[False, True, True], [False, True, True], [True, False, True]]
        assert head(torch.tensor([0.2, 0.25, 0.25, 0.3]), 0.6).tolist() == [False, True, False, True]  # ties: the first

    def test_equal_distributions(self):
        case = drawn()
        z = case.u.clone().requires_grad_()
        divergence, w = hta_divergence(z, case.u, 4.0)
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
        case, method = drawn(shape), KDSNN(pooled=pooled, feature_weight=0.3)
        module, aligned = built(method, case)
        r = weights_of(module.trained)
        expected = slow.squared(case.features[0].numpy(), case.targets[0].numpy(), r, pooled)
        parts = loss_of(method, case, aligned)
        assert parts["feature_loss"].item() == pytest.approx(expected, rel=1e-9)
        assert parts["loss"].item() == pytest.approx(slow.kd(*arrays(case)) + 0.3 * expected, rel=1e-9)

    def test_equal_channels_need_no_convolution(self):
        assert not list(channel_map(4, 4).parameters())
        assert sum(p.numel() for p in channel_map(512, 256).parameters()) == 131_328

    @pytest.mark.parametrize("pooled", [True, False])
    def test_gradients(self, pooled):
        case = drawn()
        student = torch.randn(4, 2, 4, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)).requires_grad_()
        target = case.targets[0].requires_grad_()
        assert torch.autograd.gradcheck(lambda x: squared_distance(x, target, pooled), (student,))
        case.features[0].requires_grad_()
        method = KDSNN(pooled=pooled)
        module, aligned = built(method, case)
        loss_of(method, case, aligned)["feature_loss"].backward()
        assert target.grad is None
        assert all(p.grad.any() for p in (case.features[0], *module.parameters()))

    def test_last_map_of_a_pre_activation_network_is_behind_its_norm_and_relu(self):
        torch.manual_seed(0)
        x = torch.rand(2, 3, 8, 8)
        wide = create_model("wrn16_2", "relu", image_size=8, width=1 / 8, wrn16_2_variant="wide_resnet").eval()
        features, logits = wide.features(x)
        last = wide.last_map(features[-1])
        assert features[-1].min() < 0
        assert last.min() == 0
        torch.testing.assert_close(wide.classifier(last.mean((-2, -1))), logits)
        for name in ("resnet19", "vgg11", "vgg13"):
            other = create_model(name, "relu", image_size=8, width=1 / 8).eval()
            last = other.features(x)[0][-1]
            assert other.last_map(last) is last


class TestLasnn:
    @pytest.mark.parametrize("shape", ["some", "one of each"])
    def test_against_loops(self, shape):
        case = drawn(shape)
        case.features, case.targets = case.features * 2, [case.targets[0], case.targets[0].roll(1, -1)]
        features = case.features[0].numpy()
        expected = sum(slow.attention_distance(features, t.numpy()) for t in case.targets)
        parts = loss_of(LaSNN(feature_weight=3.0), case)
        assert parts["feature_loss"].item() == pytest.approx(expected, rel=1e-9)
        assert parts["loss"].item() == pytest.approx(slow.kd(*arrays(case)) + 3 * expected, rel=1e-9)
        last = loss_of(LaSNN(), case, feature_pairs="last")["feature_loss"]
        assert last.item() == pytest.approx(slow.attention_distance(features, case.targets[1].numpy()), rel=1e-9)
        method = LaSNNMSE(feature_weight=0.5)
        module, distance = built(method, case)
        both = zip(case.targets, module.trained, strict=True)
        expected = sum(slow.squared(features, t.numpy(), weights_of(r), pooled=False) for t, r in both)
        hard = slow.kd(*arrays(case), kl_weight=0.0)
        assert loss_of(method, case, distance)["loss"].item() == pytest.approx(hard + 0.5 * expected, rel=1e-9)
        distance.backward()
        assert all(p.grad.any() for p in module.parameters())  # unlike the code that it comes from

    def test_gradients(self):
        case = drawn()
        features, target = (0.1 + case.features[0]).requires_grad_(), case.targets[0].requires_grad_()
        assert torch.autograd.gradcheck(lambda x: attention_distance(x, target), (features,))
        attention_distance(features, target).backward()
        assert target.grad is None

    def test_dead_layers(self):
        rate = torch.zeros(4, 3, 4, 4, requires_grad=True)
        value = attention_distance(rate, torch.zeros(4, 2, 2, 2))
        value.backward()
        assert value == 0
        assert rate.grad.isfinite().all()
        assert attention_distance(rate, drawn().targets[0].float()).isfinite()

    def test_scale_of_a_map_does_not_matter(self):
        case = drawn()
        value = attention_distance(case.features[0], case.targets[0])
        torch.testing.assert_close(attention_distance(case.features[0], 7 * case.targets[0]), value)


class TestBkdsnn:
    @pytest.mark.parametrize("channels", [3, 2])
    @pytest.mark.parametrize("shape", ["some", "one of each"])
    def test_against_loops(self, channels, shape):
        case, method = drawn(shape), BKDSNN(feature_weight=0.7, soft_weight=0.3, blank=0.4)
        case.features = [case.features[0][:, :, :channels]]
        module, restored = built(method, case)
        torch.manual_seed(1)
        kept = torch.rand(len(case.y), 2) >= 0.4
        align = None if channels == 2 else weights_of(module.trained["align"])
        first, _, second = module.trained["restore"]
        layers = align, weights_of(first), weights_of(second)
        expected = slow.blurred(case.features[0].numpy(), case.targets[0].numpy(), *layers, kept.numpy())
        parts = loss_of(method, case, restored)
        assert parts["feature_loss"].item() == pytest.approx(expected, rel=1e-9)
        hard = slow.kd(*arrays(case), kl_weight=0.0)
        assert parts["loss"].item() == pytest.approx(hard + 0.3 * slow.wsld(*arrays(case)) + 0.7 * expected, rel=1e-9)

    def test_size(self):
        assert sum(p.numel() for p in restorer(512, 512).parameters()) == 4_719_616
        assert sum(p.numel() for p in restorer(256, 256).parameters()) == 1_180_160

    def test_blanks_whole_channels_anew_in_every_step(self):
        case = drawn(dtype=torch.float32)
        case.features = [torch.ones(2, 500, 2, 4, 4)]
        module, _ = built(BKDSNN(blank=0.15), case)
        module.trained["restore"] = nn.Identity()
        masks = [module(case.features, case.targets, None) for _ in range(2)]
        assert not masks[0].equal(masks[1])
        for mask in masks:
            assert mask.unique().tolist() == [0, 1]  # what stays is not scaled up
            assert mask.equal(mask[:, :, :1, :1].expand_as(mask))
            assert mask.mean() == pytest.approx(0.85, abs=0.05)

    def test_gradients(self):
        case, modules = drawn(), restorer(3, 2).double()
        rate, kept = case.features[0].mean(0).requires_grad_(), torch.tensor([[True, False]] * 4)
        target = case.targets[0].requires_grad_()
        weights = tuple(modules.parameters())
        assert torch.autograd.gradcheck(lambda x, *w: restore(modules, x, kept), (rate, *weights))
        loss_of(BKDSNN(), case, restore(modules, rate, kept))["feature_loss"].backward()
        assert target.grad is None
        assert not modules["align"].weight.grad[1].any()  # a blanked channel teaches its convolution nothing
        assert rate.grad.any()

    def test_easy_images_count_less(self):
        u = torch.tensor([[4.0, 0], [4.0, 0]])
        _, w = weighted_soft_loss(torch.tensor([[9.0, 0], [-3.0, 0]]), u, torch.tensor([0, 0]))
        assert w[0] < 0.01
        assert w[1] > 0.99
        assert not w.requires_grad


@pytest.mark.parametrize("version", ["per_image", "paper", "released"])
class TestCkdsnn:
    @pytest.mark.parametrize("shape", ["some", "one of each", "two classes"])
    def test_against_loops(self, version, shape):
        case = drawn(shape)
        given = (x.numpy() for x in (case.features[0], case.targets[0], case.weight, case.u))
        expected = slow.samd(*given, version)
        torch.manual_seed(1)
        noise = torch.randn(case.u.shape)
        noisy = slow.nld(case.z.numpy(), case.u.numpy(), noise.double().numpy(), version)
        torch.manual_seed(1)
        parts = loss_of(CKDSNN(map_weight=0.3, noise_weight=0.7, version=version), case)
        assert parts["activation_divergence"].item() == pytest.approx(expected, rel=1e-9)
        assert parts["smoothed_divergence"].item() == pytest.approx(noisy, rel=1e-9)
        hard = slow.kd(*arrays(case), kl_weight=0.0)
        assert parts["loss"].item() == pytest.approx(hard + 0.3 * expected + 0.7 * noisy, rel=1e-9)

    def test_gradients(self, version):
        case = drawn()
        generator = torch.Generator().manual_seed(3)
        features = torch.rand(case.features[0].shape, generator=generator, dtype=DOUBLE).requires_grad_()
        target, weight, u = (x.requires_grad_() for x in (case.targets[0], case.weight, case.u))

        def samd(f):
            return activation_divergence(f, class_activation(target, weight, u), version)

        def nld(z):
            return smoothed_divergence(z, u, case.noise, version)

        assert torch.autograd.gradcheck(samd, (features,))
        z = case.mean.clone().requires_grad_()
        assert torch.autograd.gradcheck(nld, (z,))  # through mean and deviation too
        (samd(features) + nld(z)).backward()
        assert all(x.grad is None for x in (target, weight, u))
        assert features.grad.any()

    def test_dead_maps(self, version):
        features = torch.zeros(2, 3, 4, 2, 2, requires_grad=True)
        value = activation_divergence(features, torch.zeros(3, 2, 2), version)
        value.backward()
        assert value.item() == pytest.approx(0, abs=1e-9)
        assert features.grad.isfinite().all()

    def test_equal_logits_stay_finite(self, version):
        case = drawn()
        z = torch.ones(4, 5, dtype=DOUBLE, requires_grad=True)
        value = smoothed_divergence(z, case.u, case.noise, version)
        value.backward()
        assert value.isfinite()
        assert z.grad.isfinite().all()


class TestCkdsnnMaps:
    def test_class_activation_by_hand(self):
        target = torch.tensor([[[[1.0, 0], [2, 0]], [[0, 3.0], [1, 0]]]])
        weight, u = torch.tensor([[1.0, 1], [2, -1]]), torch.tensor([[0.0, 1]])
        assert class_activation(target, weight, u).tolist() == [[[2, 0], [3, 0]]]

    def test_class_activation_is_grad_cam_of_a_network(self):
        torch.manual_seed(0)
        network = create_model("resnet19", "relu", image_size=8, width=1 / 8).eval().requires_grad_(False)
        last = network.features(torch.rand(3, 3, 8, 8))[0][-1].requires_grad_()
        u = network.classifier(last.mean((-2, -1)))
        (gradient,) = torch.autograd.grad(u.max(-1).values.sum(), last)
        cam = (gradient.sum((-2, -1), keepdim=True) * last).sum(1).relu()
        (weight,) = (p for p in network.classifier.parameters() if p.dim() == 2)
        torch.testing.assert_close(class_activation(last, weight, u), cam.detach())

    def test_released_maps_bound_their_divergence(self):
        for seed in range(20):
            case = drawn(seed=seed)
            saliency = class_activation(100 * case.targets[0], case.weight, case.u)
            assert activation_divergence(case.features[0], saliency, "released") <= 1 / 8

    def test_teacher_without_a_linear_layer_behind_the_average(self):
        case = drawn()
        with pytest.raises(ValueError, match=r"weight=\(5, 8\): must be \(N, 2\)"):
            class_activation(case.targets[0], torch.zeros(5, 8), case.u)
        with pytest.raises(ConfigError, match="teacher='vgg11': method ckdsnn needs a teacher that ends in an average"):
            RunConfig(method="ckdsnn", teacher="vgg11")


class TestOfTheAnnLine:
    def test_fitnet(self):
        case, method = drawn(), FitNet(feature_weight=2.0, hint="last")
        case.targets[0].requires_grad_()
        module, distance = built(method, case)
        r = module.trained[0]
        x = slow.convolve(slow.shrink(case.features[0].mean(0).numpy(), 2, 2), *weights_of(r[0]))
        x = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
        expected = ((np.maximum(x, 0) - case.targets[0].detach().numpy()) ** 2).mean()
        parts = loss_of(method, case, distance)
        assert parts["feature_loss"].item() == pytest.approx(expected, rel=1e-9)
        assert parts["loss"].item() == pytest.approx(slow.kd(*arrays(case)) + 2 * expected, rel=1e-9)
        distance.backward()
        assert case.targets[0].grad is None
        assert r[0].weight.grad.any()

    def test_sp(self):
        case, method = drawn(), SP()
        features, target = case.features[0].requires_grad_(), case.targets[0].requires_grad_()
        expected = slow.sp(features.detach().numpy(), target.detach().numpy())
        module, distance = built(method, case)
        assert not list(module.parameters())
        assert distance.item() == pytest.approx(expected, rel=1e-9)
        parts = loss_of(method, case, distance)
        assert parts["loss"].item() == pytest.approx(slow.kd(*arrays(case)) + 3000 * expected, rel=1e-9)
        assert torch.autograd.gradcheck(lambda x: similarity_distance(x, target), (features,))
        parts["loss"].backward()
        assert target.grad is None

    def test_sp_of_one_image(self):
        case = drawn("one of each")
        value = similarity_distance(0.1 + case.features[0], 0.1 + case.targets[0])
        assert value.item() == pytest.approx(0, abs=1e-12)

    def test_semckd_is_sastc_at_one_step(self):
        case, method = drawn(), SemCKD()
        case.features = [case.features[0], 1 - case.features[0]]
        case.targets = [case.targets[0], 2 * case.targets[0], case.targets[0].roll(1, 0)]
        module, found = built(method, case)
        expected = 0.0
        for b in range(4):
            for s, features in enumerate(case.features):
                for a, target in enumerate(case.targets):
                    small = F.adaptive_avg_pool2d(features.mean(0), 2)
                    projected = module.trained.distances.projectors[3 * s + a](small.unsqueeze(0))[0, b]
                    error = (projected - target[b]).square().mean()
                    expected += found.attention[0, b, s, a].item() * error.item() / 8
        parts = loss_of(method, case, found)
        assert parts["feature_loss"].item() == pytest.approx(expected, rel=1e-9)
        assert parts["loss"].item() == pytest.approx(slow.kd(*arrays(case)) + 400 * expected, rel=1e-9)


@pytest.mark.parametrize("per_step_teacher", [False, True])
@pytest.mark.parametrize(
    "method",
    [KDSNN(), KDSNN(pooled=False), LaSNN(), LaSNNMSE(), BKDSNN(), CKDSNN(), FitNet(hint="last"), SP(), SemCKD()],
)
def test_losses_of_maps_under_autocast(method, per_step_teacher):
    case, exactly = drawn(dtype=torch.bfloat16), drawn(dtype=torch.float32)
    if per_step_teacher:  # maps of every step, whose mean is the one map
        for one in (case, exactly):
            one.targets = [torch.stack([x, 2 * x, 0 * x]) for x in one.targets]
    features = case.features[0].requires_grad_()
    losses = []
    for one, autocast in ((case, True), (exactly, False)):
        trained = None
        if type(method).build is not KD.build:
            one.z = one.z.float()  # weights are float32
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                _, trained = built(method, one)
        torch.manual_seed(1)
        parts = loss_of(method, one, trained)
        assert {value.dtype for value in parts.values()} == {torch.float32}
        losses.append(parts["loss"])
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=0.1)
    losses[0].backward()
    assert features.grad.isfinite().all()


def test_maps_of_one_size():
    x, y = torch.arange(16.0).view(1, 1, 4, 4), torch.arange(4.0).view(1, 1, 2, 2)
    assert of_one_size(x, y)[0].tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    assert of_one_size(x, y)[1] is y
    assert [tuple(z.shape[-2:]) for z in of_one_size(torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 2, 4))] == [(2, 2)] * 2


def test_time_mean():
    x = torch.tensor([[0, 1.0], [1, 1], [0, 1]], dtype=torch.bfloat16).view(3, 2, 1, 1, 1)
    assert time_mean(x).dtype == torch.float32
    assert time_mean(x).flatten().tolist() == [pytest.approx(1 / 3), 1]
    assert time_mean(x[0]).shape == (2, 1, 1, 1)
