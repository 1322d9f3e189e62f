"""TET with KD, a control arm: labels at every step, the teacher at their mean.

TWD, TSER and SeAl-KD differ from KD in two ways at once: the labels are taught at each step (TET), and so is the
teacher. This arm has the first alone.

Source: the sum of TET's loss (Deng et al. 2022, arXiv 2202.11946, at λ = 0) and of Eq. 8's KL term; ours.
"""

from typing import TYPE_CHECKING

from sastc.methods import Batch, Method

if TYPE_CHECKING:
    from torch import Tensor


class TETKD(Method):
    """``L = (1/T) Σ_t CE(z_t, y) + w K(z̄, u)`` with ``K(s, t) = τ² KL(σ_τ(t) ‖ σ_τ(s))``; w and τ are those of KD."""

    name, label, colour, marker = "tet_kd", "TET + KD", "#56b4e9", "X"
    needs = ("teacher_logits", "step_logits")
    fields = ("temperature", "kl_weight")

    def losses(self, batch: Batch) -> "dict[str, Tensor]":
        """Parts: "step_cross_entropy" and, without its weight, "teacher_divergence"."""
        from sastc.losses import soft_divergence, step_cross_entropy

        tet = step_cross_entropy(batch.step_logits, batch.labels)
        divergence = soft_divergence(batch.logits, batch.teacher_logits, self.config.temperature)
        parts = {"step_cross_entropy": tet, "teacher_divergence": divergence}
        return parts | {"loss": tet + self.config.kl_weight * divergence}
