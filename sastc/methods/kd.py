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


class KDWithFeatures(KD):
    """``L = KD + β D``, the base of methods with a feature loss D and the option ``feature_weight``, β."""

    name = ""  # no method itself
    needs = ("teacher_logits", "teacher_features")
    feature_weight: float

    def feature_loss(self, batch: Batch) -> "Tensor":
        """D; by default the value of the module that :meth:`build` returned."""
        return batch.trained

    def weight_at(self, epoch: int) -> float:
        """β in a zero-based epoch."""
        return self.feature_weight

    def losses(self, batch: Batch) -> "dict[str, Tensor]":
        """Parts: "kd_loss" and, without its weight, "feature_loss"."""
        parts = super().losses(batch) | {"feature_loss": self.feature_loss(batch)}
        return parts | {"loss": parts["kd_loss"] + self.weight_at(batch.epoch) * parts["feature_loss"]}
