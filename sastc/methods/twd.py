"""TWD: temporal-wise logit distillation with self-distillation over time.

Every step learns the labels, the teacher's logits, and the mean of the student's own steps.

Source: Yu et al., "Efficient Logit-based Knowledge Distillation of Deep Spiking Neural Networks for Full-Range
Timestep Deployment", ICML 2025, arXiv 2501.15925. Released code read:
Intelli-Chip-Lab/snn_temporal_decoupling_distillation at e3f5fd4. The paper was read second hand.

Published: τ = 3 (code), α = 0.2, β = 0.5 (the README's command; the argument parser's defaults are 0). Its runs:
ResNet students at T = 6, 300 epochs, SGD 0.1, AutoAugment and Cutout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SELF_TARGETS = ("correct", "mean")


def self_target(step_logits: Tensor, labels: Tensor, kind: str = "correct") -> Tensor:
    """What the steps learn of each other: logits e, ``(B, N)``, without gradient.

    Parameters
    ----------
    step_logits : Tensor
        z, ``(T, B, N)``.
    labels : Tensor
        y, ``(B,)``.
    kind : {"correct", "mean"}
        The mean over those steps of an image that classify it correctly, as in the released code; where none does, e
        is 0, so its softmax is uniform. Or the mean over all steps, as the paper has it.
    """
    from sastc.models.layers import check

    check("self_target", kind, kind in SELF_TARGETS, f"one of {', '.join(SELF_TARGETS)}")
    z = step_logits.detach()
    # paper: the mean over all steps  released: over the correct ones
    if kind == "mean":
        return z.mean(0)
    correct = (z.argmax(-1) == labels).unsqueeze(-1)
    return z.masked_fill(~correct, 0).sum(0) / correct.sum(0).clamp_min(1)  # released: count + 1e-8


def twd_loss(
    step_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 0.2,
    beta: float = 0.5,
    temperature: float = 3.0,
    target: str = "correct",
) -> dict[str, Tensor]:
    """``L = (1/T) Σ_t [ CE(z_t, y) + α K(z_t, u) + β K(z_t, e) ]`` with ``K(s, t) = τ² KL(σ_τ(t) ‖ σ_τ(s))``.

    Parameters
    ----------
    step_logits : Tensor
        z, ``(T, B, N)``.
    teacher_logits : Tensor
        u, ``(B, N)``, without gradient.
    labels : Tensor
        y, ``(B,)``.
    alpha, beta, temperature : float
        α, β, τ.
    target : {"correct", "mean"}
        e, see :func:`self_target`.

    Returns
    -------
    dict
        "loss", "step_cross_entropy", and without their weights "teacher_divergence" and "self_divergence".
    """
    from sastc.losses import exact, soft_divergence, step_cross_entropy

    z = exact(step_logits)
    tet = step_cross_entropy(z, labels)
    teacher = soft_divergence(z, teacher_logits, temperature)
    own = soft_divergence(z, self_target(z, labels, target), temperature)
    parts = {"step_cross_entropy": tet, "teacher_divergence": teacher, "self_divergence": own}
    return {"loss": tet + alpha * teacher + beta * own} | parts
