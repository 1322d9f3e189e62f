"""Losses of the paper (Eq. 6-8) and of the methods it is compared with."""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sastc.checks import check, check_one_of
from sastc.fields import choices


def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float = 4.0,
    kl_weight: float = 1.0,
    ce_weight: float = 1.0,
) -> Tensor:
    """Eq. 8: cross-entropy plus ``temperature**2`` times KL(teacher || student), batch means.

    A class that the teacher rules out, with a logit of −inf, has no part in the KL term, whatever the student says: the
    limit of p·log p is 0. One that the student alone rules out makes the loss infinite. A logit of +inf or NaN, or −inf
    alone, is no distribution, and gives NaN.

    Parameters
    ----------
    student_logits, teacher_logits : Tensor
        ``(B, N)``, the student's averaged over time; the teacher's receive no gradient.
    labels : Tensor
        ``(B,)`` class indices.
    temperature : float
        α of Eq. 8, 4 in the experiments.
    kl_weight, ce_weight : float
        Weights of the two terms, 1 in Eq. 8.

    Raises
    ------
    ValueError
        Logits of another shape, or a temperature that is not positive and finite.
    """
    student, teacher = tuple(student_logits.shape), tuple(teacher_logits.shape)
    check("student_logits", student, len(student) == 2, "(B, N): of (T, B, N) take the mean over time")
    check("teacher_logits", teacher, teacher == student, f"{student} as student_logits")
    student_logits = exact(student_logits)
    log_s, log_t = _log_softened(student_logits, teacher_logits.to(student_logits.dtype), temperature)
    kl = F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)
    return ce_weight * F.cross_entropy(student_logits, labels) + kl_weight * temperature**2 * kl


def _log_softened(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Logarithms of both softened distributions; both 0 where the teacher has no probability."""
    check("temperature", temperature, 0 < temperature < math.inf, "positive and finite")
    # paper: Eq. 8 divides the probabilities by alpha  released: the logits, as here and as the paper's notation
    log_s = F.log_softmax(exact(student_logits) / temperature, -1)
    log_t = F.log_softmax(exact(teacher_logits).detach() / temperature, -1)
    ruled_out = log_t == -math.inf  # 0·(−inf − log q) would be NaN, forward and backward; e⁰·(0 − 0) is 0
    return log_s.masked_fill(ruled_out, 0), log_t.masked_fill(ruled_out, 0)


def sastc_loss(attention: Tensor, distances: Tensor, reduction: str = "mean") -> Tensor:
    """Eq. 6: attention-weighted distances between projected student maps and teacher maps.

    Parameters
    ----------
    attention, distances : Tensor
        ``(T, B, S, A)``: weights η (Eq. 5) and squared distances of each instance.
    reduction : {"mean", "sum"}
        "mean" divides the sum by T·B·S, the scale on which the published β works; "sum" is Eq. 6 to the letter.

    An infinite distance makes the loss infinite, or NaN if its weight is 0; NaN in either gives NaN.
    """
    check_one_of("reduction", reduction, choices("reduction"))
    shape = tuple(attention.shape)
    check("attention", shape, len(shape) == 4, "(T, B, S, A)")
    check("distances", tuple(distances.shape), distances.shape == attention.shape, f"{shape} as attention")
    # paper: a bare sum  released: divided by batch, time steps and student layers
    weighted = (attention * distances).sum(-1)
    return weighted.mean() if reduction == "mean" else weighted.sum()


def feature_kd_loss(distances: Tensor) -> Tensor:
    """Mean distance over P fixed pairs of layers, time steps and instances: ``(T, B, P)`` to a scalar.

    The distances come from :class:`sastc.calibration.LayerDistances`. One that is infinite or NaN makes the mean so.
    """
    return distances.mean()


class Beside(nn.Module):
    """What a method trains beside the student: a module, and a function that says what to do with it.

    A method's :meth:`~sastc.methods.Method.build` may return it. Its value, which the loss is given, is that of
    ``function(trained, student_features, teacher_features, instances)``. Weights must be used inside it, where several
    processes average their gradients.
    """

    def __init__(self, trained: nn.Module, function: Callable[..., Any]):
        super().__init__()
        self.trained, self.function = trained, function

    def forward(self, student_features: list[Tensor], teacher_features: list[Tensor], instances: int | None = None):
        """The function of the module and of both networks' layers; `instances` as in ``Method.build``."""
        return self.function(self.trained, student_features, teacher_features, instances)


def exact(x: Tensor) -> Tensor:
    """The tensor in at least float32: losses are not computed in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def no_autocast(x: Tensor) -> contextlib.AbstractContextManager:
    """Inside, operations on the tensor's device keep the types that they are given; without autocast they do anyway."""
    kind = x.device.type
    available = torch.amp.is_autocast_available(kind)
    return torch.autocast(kind, enabled=False) if available else contextlib.nullcontext()


def time_mean(features: Tensor) -> Tensor:
    """Layers without their time steps: the mean of ``(T, B, C, H, W)``, ``(B, C, H, W)`` as it is; at least float32.

    Of spikes this is the firing rate. Of a teacher that sees one image there is one map.
    """
    if features.dim() == 4:
        return exact(features)
    return features.mean(0, dtype=torch.promote_types(features.dtype, torch.float32))


def soft_divergence(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """``temperature**2 * KL(teacher || student)`` of softened logits, the mean over all dimensions but the last.

    Logits are ``(..., N)``, broadcast against each other: a teacher's ``(B, N)`` goes with every step of ``(T, B, N)``.
    The teacher's receive no gradient, and −inf in them has no part in the sum, as in :func:`kd_loss`.
    """
    log_s, log_t = _log_softened(student_logits, teacher_logits, temperature)
    return temperature**2 * (log_t.exp() * (log_t - log_s)).sum(-1).mean()


def step_cross_entropy(step_logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """Temporal efficient training (Deng et al. 2022) at λ = 0: the mean of each step's cross-entropy.

    Logits are ``(T, B, N)``, divided by the temperature (1 but in one reading of TSER); labels ``(B,)`` class indices.
    """
    shape = tuple(step_logits.shape)
    check("step_logits", shape, len(shape) == 3, "(T, B, N)")
    check("labels", tuple(labels.shape), labels.shape == shape[1:2], f"({shape[1]},)")
    logits = exact(step_logits) / temperature
    return F.cross_entropy(logits.flatten(0, 1), labels.repeat(shape[0]))


def of_one_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps ``(B, C, H, W)`` and ``(B, C', H', W')`` with the larger one averaged down to the size of the other.

    Height and width are compared one by one: of 4x2 and 2x4 both become 2x2.
    """
    size = tuple(min(sides) for sides in zip(student.shape[-2:], teacher.shape[-2:], strict=True))
    return tuple(x if x.shape[-2:] == size else F.adaptive_avg_pool2d(x, size) for x in (student, teacher))
