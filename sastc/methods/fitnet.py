"""FitNet on time means: hints from a middle layer.

Source: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, as written in RepDistiller and SemCKD (the
latter's code read): the mean squared error of one regressed student layer, trained together with KD, weight 100, the
second stage by default. There the regressor's convolution also changes the map's size (3×3 with stride 2, transposed,
or larger); here the larger map is averaged down first, and the convolution is the 1×1 one that is used there for
equal sizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def regressor(student_channels: int, teacher_channels: int) -> nn.Module:
    """A 1×1 convolution with bias, batch norm, ReLU: trained beside the student."""
    from torch import nn

    convolution = nn.Conv2d(student_channels, teacher_channels, 1)
    return nn.Sequential(convolution, nn.BatchNorm2d(teacher_channels), nn.ReLU())


def hint_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    rate: Tensor,
    target: Tensor,
    r: nn.Module,
    *,
    beta: float = 100.0,
    kl_weight: float = 1.0,
    temperature: float = 4.0,
) -> dict[str, Tensor]:
    """``L = CE(z̄, y) + w τ² KL(σ_τ(u) ‖ σ_τ(z̄)) + β mean (r(F̄) - G)²``.

    Parameters
    ----------
    student_logits, teacher_logits : Tensor
        z̄ and u, ``(B, N)``.
    labels : Tensor
        y, ``(B,)``.
    rate, target : Tensor
        F̄, the time mean of the student's map, ``(B, C, H, W)``; G, the teacher's, ``(B, C', H', W')``, no gradient.
    r : nn.Module
        See :func:`regressor`.
    beta, kl_weight, temperature : float
        β, w, τ.

    Returns
    -------
    dict
        "loss", "kd_loss" (the first two terms) and "feature_loss".
    """
    from sastc.losses import exact, kd_loss, of_one_size

    logits = kd_loss(student_logits, teacher_logits, labels, temperature=temperature, kl_weight=kl_weight)
    rate, target = of_one_size(rate, target.detach())
    distance = (exact(r(rate)) - exact(target)).square().mean()
    return {"loss": logits + beta * distance, "kd_loss": logits, "feature_loss": distance}
