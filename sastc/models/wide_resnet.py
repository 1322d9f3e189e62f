"""Wide ResNet (Zagoruyko & Komodakis 2016): pre-activation blocks of two 3x3 convolutions."""

from torch import Tensor, nn

from sastc.models.layers import Conv, PerStep, Recipe, Stage, Unit, pooled_head, residual_stem
from sastc.models.network import Network


class WideUnit(Unit):
    """``x + branch(a)`` with ``a = neuron(norm(x))``; where the shape changes, ``project(a) + branch(a)``."""

    def __init__(self, recipe: Recipe, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.activation = nn.Sequential(PerStep(recipe.norm(inputs)), recipe.make_neuron())
        self.branch = nn.Sequential(
            recipe.conv_norm(inputs, outputs, stride=stride), recipe.make_neuron(), PerStep(Conv(outputs, outputs))
        )
        changes = stride > 1 or inputs != outputs
        self.project = PerStep(Conv(inputs, outputs, 1, stride)) if changes else None

    def current(self, x: Tensor) -> Tensor:
        """Pre-activation sum."""
        a = self.activation(x)
        return self.branch(a) + (x if self.project is None else self.project(a))


def wide_resnet(recipe: Recipe, depth: int, widen: int, **head: str) -> Network:
    """WRN-`depth`-`widen`: ``(depth - 4) / 6`` blocks in each of three stages. Taps are the pre-activation sums."""
    stem, pool = residual_stem(recipe, 16, norm=False, fire=False)
    stages, inputs = {"stem": stem}, stem.channels
    for k in (1, 2, 3):
        units, outputs = list(pool) if k == 1 else [], recipe.channels(16 * widen * 2 ** (k - 1))
        for i in range((depth - 4) // 6):
            units.append(WideUnit(recipe, inputs, outputs, stride=2 if k > 1 and i == 0 else 1))
            inputs = outputs
        stages[f"stage{k}"] = Stage(*units, channels=inputs, stride=2 if k > 1 or pool else 1)
    neck, classifier = pooled_head(recipe, inputs, **head)
    last = [PerStep(recipe.norm(inputs)), recipe.make_neuron()]
    return Network(recipe, stages, nn.Sequential(*last, *neck), classifier)
