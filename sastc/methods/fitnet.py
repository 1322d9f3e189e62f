"""FitNet on time means: hints from a middle layer.

Source: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, as written in RepDistiller and SemCKD (the
latter's code read): the mean squared error of one regressed student layer, trained together with KD, weight 100, the
second stage by default. There the regressor's convolution also changes the map's size (3×3 with stride 2, transposed,
or larger); here the larger map is averaged down first, and the convolution is the 1×1 one that is used there for
equal sizes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sastc.checks import ConfigError
from sastc.methods import option
from sastc.methods.kd import KDWithFeatures

if TYPE_CHECKING:
    from torch import Tensor, nn


class FitNet(KDWithFeatures):
    """``L = KD + β Σ mean (r(F̄) - G)²`` over the pairs of layers in `hint`; the mean over instances, channels, pixels.

    F̄ is the time mean of the student's layer, G the teacher's; r a 1×1 convolution, batch norm and ReLU.
    """

    name, label, colour, marker = "fitnet", "FitNet", "#a0522d", "P"
    feature_weight: float = option(100.0, "weight β of the squared error", low=0)
    hint: str = option("2-2", "layers of student and teacher: 2-2, several such as 1-1,2-2, last, one_to_one or all")

    def build(self, student_shapes: Sequence[tuple], teacher_shapes: Sequence[tuple]) -> "nn.Module":
        """A module r for every pair."""
        from torch import nn

        from sastc.calibration import layer_pairs
        from sastc.losses import Beside, exact, of_one_size, time_mean

        try:
            pairs = layer_pairs(self.hint, len(student_shapes), len(teacher_shapes))
        except ValueError as error:
            raise ConfigError(str(error).replace("pairs=", "hint=", 1)) from None

        def regressor(student: int, teacher: int) -> "nn.Module":
            channels = student_shapes[student][0], teacher_shapes[teacher][0]
            return nn.Sequential(nn.Conv2d(*channels, 1), nn.BatchNorm2d(channels[1]), nn.ReLU())

        def errors(regressors: "nn.Module", students: "list[Tensor]", teachers: "list[Tensor]", *_) -> "Tensor":
            total = 0.0
            for r, (s, a) in zip(regressors, pairs, strict=True):
                rate, target = of_one_size(time_mean(students[s]), time_mean(teachers[a].detach()))
                total = total + (exact(r(rate)) - target).square().mean()
            return total

        return Beside(nn.ModuleList([regressor(*pair) for pair in pairs]), errors)
