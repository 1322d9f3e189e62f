"""TSER: temporal separation with entropy regularisation.

Every step learns the labels and the teacher's logits; the entropy of every step's output is raised, against
over-confident knowledge of the teacher that is wrong.

Source: Yu et al., "Temporal Separation with Entropy Regularization for Knowledge Distillation in Spiking Neural
Networks", CVPR 2025, arXiv 2503.03144. Its abstract was read; its code, yukairong/TSER, could not be had. The formula
is second hand, from the re-implementation matteogianferrari/tser-kd at 3ae4478.

Not settled, and therefore switches: the weights (the re-implementation's settings have α, γ, τ = 0.01, 0.001, 5 and
0.7, 0.01, 5; the paper is said to be stable for τ from 2 to 6), and whether the cross-entropy is softened by τ too,
as it is there. The defaults τ = 4, α = 0.5, γ = 0.1 are ours: of all methods here this one's weights are the least
certain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def tser_loss(
    step_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 0.5,
    gamma: float = 0.1,
    temperature: float = 4.0,
    soft_labels: bool = False,
) -> dict[str, Tensor]:
    """``L = (1/T) Σ_t [ (1 - α) CE(z_t, y) + α τ² KL(σ_τ(u) ‖ σ_τ(z_t)) - γ H(σ_τ(z_t)) ]``.

    Parameters
    ----------
    step_logits : Tensor
        z, ``(T, B, N)``.
    teacher_logits : Tensor
        u, ``(B, N)``, without gradient.
    labels : Tensor
        y, ``(B,)``.
    alpha, gamma, temperature : float
        α, γ (λ in the paper), τ.
    soft_labels : bool
        The cross-entropy too is that of logits divided by τ, as in the re-implementation.

    Returns
    -------
    dict
        "loss", and without their weights "step_cross_entropy", "teacher_divergence" and "entropy" (in nats).
    """
    from sastc.losses import exact, soft_divergence, step_cross_entropy

    z = exact(step_logits)
    tet = step_cross_entropy(z, labels, temperature if soft_labels else 1.0)
    teacher = soft_divergence(z, teacher_logits, temperature)
    log_p = (z / temperature).log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1).mean()
    loss = (1 - alpha) * tet + alpha * teacher - gamma * entropy
    return {"loss": loss, "step_cross_entropy": tet, "teacher_divergence": teacher, "entropy": entropy}
