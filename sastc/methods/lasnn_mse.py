"""LaSNN as BKDSNN's code has it: the squared distance of whole maps, layer by layer.

Source: the baseline called LaSNN in the released code of BKDSNN (Xu et al., ECCV 2024;
Intelligent-Computing-Research-Group/BKDSNN read at dd6bd53): maps at the ends of four stages, weight 7e-5, no logit
term. Its 1×1 convolutions lie in a plain list and are never trained; here they are. The method of the paper itself
distils attention maps, see :mod:`sastc.methods.lasnn`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sastc.methods import Batch, Method, option
from sastc.methods.kdsnn import channel_map, squared_distance

if TYPE_CHECKING:
    from torch import Tensor, nn


class LaSNNMSE(Method):
    """``L = CE(z̄, y) + α Σ_pairs (1/B) ‖r(F̄) - G‖²``, sums over channels and pixels.

    F̄ are the firing rates of a student layer, G is the teacher layer of the pair, as it is tapped; of maps of unequal
    size the larger is averaged down. r is a 1×1 convolution where the channels are not as many.
    """

    name, label, colour, marker = "lasnn_mse", "LaSNN (BKDSNN's)", "#44aa99", "d"
    needs = ("teacher_features",)
    fields = ("feature_pairs",)
    feature_weight: float = option(7e-5, "weight α of the squared distance of the maps", low=0)

    def build(self, student_shapes: Sequence[tuple], teacher_shapes: Sequence[tuple]) -> "nn.Module":
        """A module r for every pair."""
        from torch import nn

        from sastc.calibration import layer_pairs
        from sastc.losses import Beside, time_mean

        pairs = layer_pairs(self.config.feature_pairs, len(student_shapes), len(teacher_shapes))
        maps = nn.ModuleList([channel_map(student_shapes[s][0], teacher_shapes[a][0]) for s, a in pairs])

        def distance(maps: "nn.Module", students: "list[Tensor]", teachers: "list[Tensor]", *_) -> "Tensor":
            aligned = [r(time_mean(students[s])) for r, (s, _) in zip(maps, pairs, strict=True)]
            targets = [time_mean(teachers[a]) for _, a in pairs]
            return sum(squared_distance(*both, pooled=False) for both in zip(aligned, targets, strict=True))

        return Beside(maps, distance)

    def losses(self, batch: Batch) -> "dict[str, Tensor]":
        """Part: without its weight, "feature_loss"."""
        return {"feature_loss": batch.trained, "loss": batch.cross_entropy + self.feature_weight * batch.trained}
