"""TET, a control arm: every step learns the labels, without a teacher.

TWD, TSER and SeAl-KD take the cross-entropy of each step's logits instead of that of their mean. This arm shows what
that alone is worth, so that it is not counted as a gain of their distillation.

Source: Deng, Li, Zhang, Gu, "Temporal Efficient Training of Spiking Neural Network via Gradient Re-weighting", ICLR
2022, arXiv 2202.11946. Its second term, λ times the squared distance of the logits to the firing threshold, is left
out, as in the three methods (λ = 0).
"""

from typing import TYPE_CHECKING

from sastc.methods import Batch, Method

if TYPE_CHECKING:
    from torch import Tensor


class TET(Method):
    """``L = (1/T) Σ_t CE(z_t, y)`` with the logits z_t of step t."""

    name, label, colour, marker, cost = "tet", "TET", "#4d4d4d", "P", 0.77
    needs = ("step_logits",)

    def losses(self, batch: Batch) -> "dict[str, Tensor]":
        """Parts: "step_cross_entropy", which is the loss."""
        from sastc.losses import step_cross_entropy

        tet = step_cross_entropy(batch.step_logits, batch.labels)
        return {"step_cross_entropy": tet, "loss": tet}
