"""KD: the student follows the labels and the teacher's softened logits (Hinton et al., 2015)."""

from typing import TYPE_CHECKING, ClassVar

from sastc.methods import Batch, Method

if TYPE_CHECKING:
    from torch import Tensor


class KD(Method):
    """Eq. 8: ``L = w CE(z̄, y) + v K(z̄, u)`` with ``K(s, t) = τ² KL(σ_τ(t) ‖ σ_τ(s))`` and v = w = 1."""

    name, label, colour, marker, place, cost = "kd", "KD", "#0072b2", "o", 1, 1.0
    needs: ClassVar[tuple[str, ...]] = ("teacher_logits",)
    fields: ClassVar[tuple[str, ...]] = ("temperature", "kl_weight", "ce_weight")

    def losses(self, batch: Batch) -> "dict[str, Tensor]":
        """Cross-entropy plus KL divergence at a temperature."""
        from sastc.losses import kd_loss

        weights = {name: getattr(self.config, name) for name in KD.fields}
        loss = kd_loss(batch.logits, batch.teacher_logits, batch.labels, **weights)
        return {"kd_loss": loss, "loss": loss}
