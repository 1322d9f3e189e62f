"""SemCKD on time means: SASTC without time.

Source: Chen et al., "Cross-Layer Distillation with Semantic Calibration", AAAI 2021, arXiv 2012.03236; code read:
DefangChen/SemCKD. Attention from every student layer to every teacher layer, from similarity matrices, weighs the
mean squared errors of regressed maps; weight 400, with KD.

This is the module of SASTC at T = 1, shown the time means: what differs from SASTC is time, and the pooling of a map
that is larger than its partner (averages, as in SemCKD; SASTC takes maxima). Two parts are therefore SASTC's and not
SemCKD's: the projector (3×3 convolution, batch norm, ReLU, 1×1 convolution; SemCKD has another 1×1 convolution, batch
norm and ReLU before it), and query and key MLPs whose hidden layer is as wide as SASTC's.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sastc.methods import Batch, option
from sastc.methods.kd import KD, KDWithFeatures
from sastc.methods.sastc import SASTC

if TYPE_CHECKING:
    from torch import Tensor, nn


class SemCKD(KDWithFeatures):
    """``L = KD + β (1/BS) Σ_{b,s,a} η_bsa MSE(r_sa(F̄_s), G_a)_b`` for S student layers; F̄ are their time means."""

    name, label, colour, marker, cost = "semckd", "SemCKD", "#ddaa33", "d", 1.5
    fields = (*KD.fields, "mlp_dim")
    presets: ClassVar = SASTC.presets
    feature_weight: float = option(400.0, "weight β of the attention-weighted distances", low=0)

    check = SASTC.check  # the MLPs read a row of the batch's similarities, too

    def build(self, student_shapes: Sequence[tuple], teacher_shapes: Sequence[tuple]) -> "nn.Module":
        """Attention and projectors of SASTC at one step; average pooling for every map."""
        from sastc.calibration import SelfAttentiveCalibration
        from sastc.losses import Beside, time_mean

        module = SelfAttentiveCalibration(student_shapes, teacher_shapes, self.config.mlp_dim, resize_student="avg")

        def found(
            module: "nn.Module", students: "list[Tensor]", teachers: "list[Tensor]", instances: int | None
        ) -> Any:
            rates = [time_mean(x).unsqueeze(0) for x in students]
            return module(rates, [time_mean(x) for x in teachers], instances)

        return Beside(module, found)

    def feature_loss(self, batch: Batch) -> "Tensor":
        """Eq. 6 at one step."""
        from sastc.losses import sastc_loss

        return sastc_loss(batch.trained.attention, batch.trained.distances)
