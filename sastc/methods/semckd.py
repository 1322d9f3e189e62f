"""SemCKD on time means: SASTC without time.

Source: Chen et al., "Cross-Layer Distillation with Semantic Calibration", AAAI 2021, arXiv 2012.03236; code read:
DefangChen/SemCKD. Attention from every student layer to every teacher layer, from similarity matrices, weighs the
mean squared errors of regressed maps; weight 400, with KD.

This is the module of SASTC at T = 1, shown the time means: what differs from SASTC is time alone. Two parts are
therefore SASTC's and not SemCKD's: the projector (3×3 convolution, batch norm, ReLU, 1×1 convolution; SemCKD has
another 1×1 convolution, batch norm and ReLU before it), and query and key MLPs whose hidden layer is as wide as
SASTC's. Of maps of unequal size the larger is averaged, as in SemCKD.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn


def calibration(
    student_shapes: Sequence[tuple[int, int, int]], teacher_shapes: Sequence[tuple[int, int, int]], batch_size: int
) -> nn.Module:
    """Attention and projectors: :class:`sastc.calibration.SelfAttentiveCalibration`, average pooling for every map."""
    from sastc.calibration import SelfAttentiveCalibration

    return SelfAttentiveCalibration(student_shapes, teacher_shapes, batch_size, resize_student="avg")


def semckd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    rates: Sequence[Tensor],
    targets: Sequence[Tensor],
    module: nn.Module,
    instances: int | None = None,
    *,
    beta: float = 400.0,
    kl_weight: float = 1.0,
    temperature: float = 4.0,
) -> dict[str, Tensor]:
    """``L = CE(z̄, y) + w τ² KL(σ_τ(u) ‖ σ_τ(z̄)) + β (1/BS) Σ_{b,s,a} η_bsa MSE(r_sa(F̄_s), G_a)_b``.

    Parameters
    ----------
    student_logits, teacher_logits : Tensor
        z̄ and u, ``(B, N)``.
    labels : Tensor
        y, ``(B,)``.
    rates, targets : sequence of Tensor
        F̄, the time means of S student layers, ``(B, C, H, W)``; G, A teacher layers, ``(B, C', H', W')``, no gradient.
    module : nn.Module
        See :func:`calibration`.
    instances : int, optional
        Size of the batch over all processes.
    beta, kl_weight, temperature : float
        β, w, τ.

    Returns
    -------
    dict
        "loss", "kd_loss" (the first two terms) and "feature_loss".
    """
    from sastc.losses import kd_loss, sastc_loss

    logits = kd_loss(student_logits, teacher_logits, labels, temperature=temperature, kl_weight=kl_weight)
    found = module([rate.unsqueeze(0) for rate in rates], targets, instances)
    distance = sastc_loss(found.attention, found.distances)
    return {"loss": logits + beta * distance, "kd_loss": logits, "feature_loss": distance}
