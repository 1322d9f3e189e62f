"""SASTC: attention decides which teacher layer guides which student layer, at each time step and for each instance."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from sastc.checks import ConfigError
from sastc.methods import Batch
from sastc.methods.feature_kd import DISTANCES, FeatureKD
from sastc.methods.kd import KD

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sastc.config import RunConfig

CALIBRATION = ("qk_norm", "score_scale", "mlp_sharing", "sim_norm", "sim_order", "detach_sim", "attention")


class SASTC(FeatureKD):
    """``L = KD + β (1/TBS) Σ_{t,b,s,a} η_tbsa d_tbsa``: attention η weighs the distances d of all pairs (Eq. 2-8)."""

    name, label, colour, marker, place, cost = "sastc", "SASTC", "#d55e00", "D", 3, 1.9
    fields = (
        *(*KD.fields, "beta", "beta_schedule", "reduction", "mlp_dim"),
        *(*CALIBRATION, *DISTANCES, "stm_weighted", "attention_steps"),
    )
    presets: ClassVar = {"partial_batch": "drop"}  # paper: silent  released: SASTC alone drops it

    @classmethod
    def check(cls, config: "RunConfig") -> None:
        """The MLPs read a row of the batch's similarities."""
        if config.mlp_dim < config.batch_size:
            raise ConfigError(f"mlp_dim={config.mlp_dim!r}: must be at least batch_size={config.batch_size}")

    def build(self, student_shapes: Sequence[tuple], teacher_shapes: Sequence[tuple]) -> "nn.Module":
        """Query and key MLPs, and a projector for each pair of layers (Eq. 2 and 4)."""
        from sastc.calibration import SelfAttentiveCalibration

        options = {name: getattr(self.config, name) for name in (*CALIBRATION, *DISTANCES)}
        return SelfAttentiveCalibration(student_shapes, teacher_shapes, self.config.mlp_dim, **options)

    @property
    def leaves_unused(self) -> bool:
        """The MLPs of the controls get no gradient."""
        return self.config.attention != "learned"

    def feature_loss(self, batch: Batch) -> "Tensor":
        """Eq. 6."""
        from sastc.losses import sastc_loss

        loss = sastc_loss(batch.trained.attention, batch.trained.distances, self.config.reduction)
        return loss / batch.share if self.config.reduction == "sum" else loss

    def look(self, batch: Batch) -> "dict[str, Tensor]":
        """Attention, distances, and where the largest weight is on the layer with the least distance."""
        attention, distances = batch.trained.attention.detach(), batch.trained.distances.detach()
        easiest = (attention.argmax(-1) == distances.argmin(-1)).float()
        return {"attention": attention, "distance": distances, "easiest": easiest}

    def similarities(self, batch: Batch) -> "tuple[Tensor, Tensor]":
        """Those that the attention was made from."""
        return batch.trained.student_similarity.detach(), batch.trained.teacher_similarity
