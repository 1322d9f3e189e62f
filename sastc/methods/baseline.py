"""Baseline: the student learns from the labels alone."""

from typing import TYPE_CHECKING

from sastc.methods import Batch, Method

if TYPE_CHECKING:
    from torch import Tensor


class Baseline(Method):
    """``L = CE(z̄, y)`` of the mean logits z̄; no teacher."""

    name, label, colour, marker, place, cost = "baseline", "Baseline", "#7a7a7a", "s", 0, 0.77

    def losses(self, batch: Batch) -> "dict[str, Tensor]":
        """The cross-entropy of the mean logits."""
        return {"loss": batch.cross_entropy}
