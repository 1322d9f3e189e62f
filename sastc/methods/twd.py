"""TWD: temporal-wise logit distillation with self-distillation over time.

Every step learns the labels, the teacher's logits, and the mean of the student's own steps.

Source: Yu et al., "Efficient Logit-based Knowledge Distillation of Deep Spiking Neural Networks for Full-Range
Timestep Deployment", ICML 2025, arXiv 2501.15925. Released code read:
Intelli-Chip-Lab/snn_temporal_decoupling_distillation at e3f5fd4. The paper is known from summaries.

Published: τ = 3 (code), α = 0.2, β = 0.5 (the README's command; the argument parser's defaults are 0). Its runs:
ResNet students at T = 6, 300 epochs, SGD 0.1, AutoAugment and Cutout.
"""

from typing import TYPE_CHECKING

from sastc.methods import Batch, Method, option

if TYPE_CHECKING:
    from torch import Tensor


class TWD(Method):
    """``L = (1/T) Σ_t [ CE(z_t, y) + α K(z_t, u) + β K(z_t, e) ]`` with ``K(s, t) = τ² KL(σ_τ(t) ‖ σ_τ(s))``.

    e is that of :func:`self_target`.
    """

    name, label, colour, marker = "twd", "TWD", "#cc79a7", ">"
    needs = ("teacher_logits", "step_logits")
    teacher_weight: float = option(0.2, "weight α of the divergence of each step from the teacher", low=0)
    self_weight: float = option(0.5, "weight β of the divergence of each step from the mean of the steps", low=0)
    tau: float = option(3.0, "temperature of both", low=0, open_low=True)
    target: str = option(
        "correct", "steps in that mean: those that are right (released), or all (paper)", choices=("correct", "mean")
    )

    def losses(self, batch: Batch) -> "dict[str, Tensor]":
        """Parts: "step_cross_entropy", and without their weights "teacher_divergence" and "self_divergence"."""
        from sastc.losses import exact, soft_divergence, step_cross_entropy

        z = exact(batch.step_logits)
        tet = step_cross_entropy(z, batch.labels)
        teacher = soft_divergence(z, batch.teacher_logits, self.tau)
        own = soft_divergence(z, self_target(z, batch.labels, self.target), self.tau)
        parts = {"step_cross_entropy": tet, "teacher_divergence": teacher, "self_divergence": own}
        return parts | {"loss": tet + self.teacher_weight * teacher + self.self_weight * own}


def self_target(step_logits: "Tensor", labels: "Tensor", kind: str = "correct") -> "Tensor":
    """What the steps learn of each other: logits e, ``(B, N)``, without gradient, of z ``(T, B, N)`` and y ``(B,)``.

    "correct" is the mean over those steps of an image that classify it correctly; where none does, e is 0, so its
    softmax is uniform. "mean" is that over all steps.
    """
    z = step_logits.detach()
    # paper: the mean over all steps  released: over the correct ones
    if kind == "mean":
        return z.mean(0)
    correct = (z.argmax(-1) == labels).unsqueeze(-1)
    return z.masked_fill(~correct, 0).sum(0) / correct.sum(0).clamp_min(1)  # released: count + 1e-8
