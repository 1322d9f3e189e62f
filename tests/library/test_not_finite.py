"""What losses and measures make of infinite and NaN input: what their docstrings say, never a number that hides it."""

import math

import pytest
import torch
from torch import nn

from sastc.attention import attention_bounds
from sastc.calibration import LayerDistances, SelfAttentiveCalibration, similarity
from sastc.cka import linear_cka
from sastc.fisher import squared_gradients
from sastc.losses import feature_kd_loss, kd_loss, sastc_loss
from sastc.stm import MeanMismatch, pair_mismatch, stm_from_mismatch, stm_score

STEPS, BATCH = 2, 4
BAD = [math.nan, math.inf, -math.inf]


def maps(*sizes):
    torch.manual_seed(0)
    students = [torch.randn(STEPS, BATCH, *size) for size in sizes]
    return students, [torch.randn(BATCH, *size) for size in sizes]


def test_a_class_that_the_student_alone_rules_out():
    student, teacher = torch.zeros(2, 3), torch.zeros(2, 3)
    student[0, 1] = -math.inf
    labels = torch.tensor([0, 0])
    assert kd_loss(student, teacher, labels) == math.inf
    teacher[0, 1] = -math.inf
    assert kd_loss(student, teacher, labels).isfinite()
    assert kd_loss(student, teacher, torch.tensor([1, 0])) == math.inf, "it is the label"


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_distances_that_are_infinite(reduction):
    attention, distances = torch.full((1, 2, 1, 2), 0.5), torch.ones(1, 2, 1, 2)
    distances[0, 0, 0, 0] = math.inf
    assert sastc_loss(attention, distances, reduction) == math.inf
    attention[0, 0, 0, 0] = 0
    assert sastc_loss(attention, distances, reduction).isnan()
    attention[0, 0, 0, 0], distances[0, 0, 0, 0] = math.nan, 1.0
    assert sastc_loss(attention, distances, reduction).isnan()
    assert feature_kd_loss(torch.tensor([[[1.0, math.inf]]])) == math.inf
    assert feature_kd_loss(torch.tensor([[[1.0, math.nan]]])).isnan()


@pytest.mark.parametrize("value", BAD)
def test_similarities_show_whose_features_are_not_finite(value):
    (features, *_), _ = maps((3, 2, 2))
    features[1, 2, 0, 0, 0] = value
    bad = ~similarity(features).isfinite()
    expected = torch.zeros(STEPS, BATCH, BATCH, dtype=torch.bool)
    expected[1, 2, :] = expected[1, :, 2] = True
    assert torch.equal(bad, expected)


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("side", [0, 1])
def test_mismatch_scores_are_not_finite_either(value, side):
    features = maps((3, 2, 2), (2, 1, 1))
    assert math.isfinite(stm_score(*features))
    features[side][0][0, 0].flatten()[0] = value
    assert not math.isfinite(score := stm_score(*features))
    assert score != -math.inf, "which is a perfect match"
    mean = MeanMismatch()
    mean.add(*SelfAttentiveCalibration.similarities(*features), BATCH)
    for found in mean.means().values():
        assert not (found[:, :, 0] if side else found[0, 0]).isfinite().any()


def test_scores_of_mismatch_and_weights():
    mismatch, weights = torch.ones(1, 1, 2), torch.tensor([[[1.0, 0.0]]])
    mismatch[0, 0, 1] = math.inf
    assert stm_from_mismatch(mismatch) == stm_from_mismatch(mismatch, log_base="none") == math.inf
    assert math.isnan(stm_from_mismatch(mismatch, weights=weights))
    assert math.isnan(stm_from_mismatch(torch.ones(1, 1, 2), weights=0 * weights))
    assert math.isnan(stm_from_mismatch(torch.ones(1, 1, 2), weights=math.nan * weights))
    with pytest.raises(ValueError, match=r"weights=-1.0: must be >= 0"):
        stm_from_mismatch(torch.ones(1, 1, 2), weights=torch.tensor([[[0.5, -1.0]]]))
    both = torch.full((1, 1, 2, 2), math.inf)
    assert pair_mismatch(both, both[0]).isnan().all()


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("value", BAD)
def test_cka_of_what_is_not_finite_is_nan(value, unbiased):
    students, teachers = (torch.stack([f @ f.mT for f in torch.randn(n, 6, 9)]) for n in (2, 3))
    teachers[1, 0, 3] = value
    found = linear_cka(students[None], teachers, unbiased=unbiased)
    assert found[..., 1].isnan().all()
    assert found[..., [0, 2]].isfinite().all()


class Linear(nn.Module):
    """Logits of one linear layer at every step."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def logits_by_step(self, x):
        return torch.stack([self.layer(x), 2 * self.layer(x)])


@pytest.mark.parametrize("value", BAD)
def test_fisher_information_of_a_sample_that_is_not_finite(value):
    x, y = torch.randn(3, 3), torch.tensor([0, 1, 0])
    x[1, 0] = value
    for options in ({"y": y}, {"labels": "expected"}):
        found = squared_gradients(Linear(), x, **options)
        assert found[:, 1].isnan().all()
        assert found[:, [0, 2]].isfinite().all()
    with pytest.raises(ValueError, match="labels='sampled': must be true or expected where the model's logits are no"):
        squared_gradients(Linear(), x, labels="sampled")


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("source", ["learned", "untrained", "cka", "uniform", "random"])
def test_calibration_hides_nothing(source, side, value):
    sizes = [(3, 2, 2), (2, 1, 1)]
    features = maps(*sizes)
    features[side][0][0, 0].flatten()[0] = value
    options = dict(attention=source, projector_bn="none" if side else "per_step")
    module = SelfAttentiveCalibration(sizes, sizes, BATCH, **options)
    attention, distances, *_ = module(*features)
    given = source in ("uniform", "random")
    if given:
        assert attention.isfinite().all()
    elif source == "cka" or math.isnan(value):  # ReLU makes 0 of −inf
        assert attention[0, :, 0].isnan().all()
    bad = distances[0, 0, :, 0] if side else distances[0, :, 0, :1] if value == -math.inf else distances[0, :, 0]
    assert not bad.isfinite().any(), "but a smaller target's max-pooling passes over −inf"
    assert not LayerDistances(sizes, sizes, "all")(*features).isfinite().all()


def test_bounds_of_any_scale():
    assert attention_bounds(3, score_scale=0) == pytest.approx((1 / 3, 1 / 3))
    assert attention_bounds(3) == pytest.approx((0.0634, 0.7870), abs=1e-4)
    assert attention_bounds(3, score_scale=-1e9) == pytest.approx((0, 1), abs=1e-300)
    assert attention_bounds(1) == pytest.approx((1, 1))
    for control in ("easiest", "hardest"):  # all weight on one layer
        assert attention_bounds(3, attention=control) == (0, 1)
