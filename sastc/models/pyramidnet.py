"""PyramidNet (Han, Kim & Kim 2017): every block is a little wider than the one before."""

from torch import nn

from sastc.models.layers import Conv, PerStep, Recipe, ResidualUnit, Stage, pooled_head, residual_stem
from sastc.models.network import Network


def pyramidnet(recipe: Recipe, depth: int, alpha: float, taps: str, **head: str) -> Network:
    """PyramidNet-`depth` with ``(depth - 2) / 6`` basic blocks in each of three stages.

    The stem has 16 channels, the last block `alpha` more (both before the width factor), in equal parts over all
    blocks. Taps are the pre-activation sums; `taps` "released" leaves out stage 2.
    """
    stem, pool = residual_stem(recipe, 16, fire=False)
    stages, inputs = {"stem": stem}, stem.channels
    n = (depth - 2) // 6
    for k in (1, 2, 3):
        units = list(pool) if k == 1 else []
        for i in range(n):
            outputs = recipe.channels(16 + alpha * (n * (k - 1) + i + 1) / (3 * n))
            units.append(_block(recipe, inputs, outputs, stride=2 if k > 1 and i == 0 else 1))
            inputs = outputs
        stages[f"stage{k}"] = Stage(*units, channels=inputs, stride=2 if k > 1 or pool else 1)
    neck, classifier = pooled_head(recipe, inputs, **head)
    last = [PerStep(recipe.norm(inputs)), recipe.make_neuron()]
    # paper: three targets in Fig. 2  released: the features of stage 2 are not collected
    untapped = ("stage2",) if taps == "released" else ()
    return Network(recipe, stages, nn.Sequential(*last, *neck), classifier, untapped)


def _block(recipe: Recipe, inputs: int, outputs: int, stride: int) -> ResidualUnit:
    """norm-conv-norm-neuron-conv-norm, added to a shortcut without weights: average pool and zero channels."""
    branch = nn.Sequential(
        PerStep(recipe.norm(inputs), Conv(inputs, outputs, stride=stride), recipe.norm(outputs)),
        recipe.make_neuron(),
        recipe.conv_norm(outputs, outputs),
    )
    return ResidualUnit(branch, PerStep(nn.AvgPool2d(2, ceil_mode=True)) if stride > 1 else None)
