"""Feature KD: fixed pairs of layers, each student layer pulled to its teacher layer beside KD."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sastc.methods import Batch
from sastc.methods.kd import KD, KDWithFeatures

if TYPE_CHECKING:
    from torch import Tensor, nn

DISTANCES = ("resize_student", "small_student", "projector_bn", "target_norm", "target_scale")


class FeatureKD(KDWithFeatures):
    """``L = KD + β D``, D the mean distance of the pairs over T, B and pairs (Eq. 7 without attention)."""

    name, label, colour, marker, place, cost = "feature_kd", "Feature KD", "#e69f00", "^", 2, 1.4
    fields = (*KD.fields, "beta", "beta_schedule", "feature_pairs", *DISTANCES)

    def build(self, student_shapes: Sequence[tuple], teacher_shapes: Sequence[tuple]) -> "nn.Module":
        """A projector for each pair (Eq. 2)."""
        from sastc.calibration import LayerDistances

        options = {name: getattr(self.config, name) for name in DISTANCES}
        return LayerDistances(student_shapes, teacher_shapes, self.config.feature_pairs, **options)

    def feature_loss(self, batch: Batch) -> "Tensor":
        """Mean distance over pairs, time steps and instances."""
        from sastc.losses import feature_kd_loss

        return feature_kd_loss(batch.trained)

    def weight_at(self, epoch: int) -> float:
        """β of the config, by its `beta_schedule`."""
        return self.config.beta_at(epoch)

    def terms(self, parts: "dict[str, Tensor]", epoch: int) -> "tuple[Tensor, Tensor]":
        """KD's loss, and β times the feature loss."""
        return parts["kd_loss"], self.weight_at(epoch) * parts["feature_loss"]
