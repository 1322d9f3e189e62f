"""ResNet (He et al. 2016). In an SNN the neuron fires after the residual addition, where the ReLU stands in an ANN."""

from collections.abc import Callable, Sequence

from torch import nn

from sastc.models.layers import Recipe, ResidualUnit, Stage, pooled_head, residual_stem
from sastc.models.network import Network

# Blocks and published channels of each stage.
RESNET19 = (3, 3, 2), (128, 256, 512)  # Zheng et al. 2021, the released teacher
# paper: only the name  released: three stages, the trunk otherwise known as ResNet-19
RESNET18 = {"released": RESNET19, "standard": ((2, 2, 2, 2), (64, 128, 256, 512))}


def basic(recipe: Recipe, inputs: int, planes: int, stride: int) -> tuple[nn.Sequential, int]:
    """Residual branch of two 3x3 convolutions, and its number of output channels."""
    outputs = recipe.channels(planes)
    return nn.Sequential(
        recipe.conv_norm(inputs, outputs, stride=stride), recipe.make_neuron(), recipe.conv_norm(outputs, outputs)
    ), outputs


def bottleneck(recipe: Recipe, inputs: int, planes: int, stride: int) -> tuple[nn.Sequential, int]:
    """Wide bottleneck: 1x1, 3x3 (with the stride) at ``2 * planes`` channels, then 1x1 to ``4 * planes``."""
    inner, outputs = recipe.channels(2 * planes), recipe.channels(4 * planes)
    return nn.Sequential(
        recipe.conv_norm(inputs, inner, 1),
        recipe.make_neuron(),
        recipe.conv_norm(inner, inner, 3, stride),
        recipe.make_neuron(),
        recipe.conv_norm(inner, outputs, 1),
    ), outputs


def resnet(
    recipe: Recipe,
    blocks: Sequence[int],
    planes: Sequence[int],
    *,
    stem: int = 64,
    branch: Callable = basic,
    **head: str,
) -> Network:
    """Post-activation ResNet with so many `blocks` in each stage; every stage but the first halves the image.

    `planes` and `stem` are published channel counts, `branch` is :func:`basic` or :func:`bottleneck`, and
    :func:`sastc.models.layers.pooled_head` explains `head`.
    """
    first, pool = residual_stem(recipe, stem)
    stages, inputs = {"stem": first}, first.channels
    for k, (count, width) in enumerate(zip(blocks, planes, strict=True), start=1):
        units = list(pool) if k == 1 else []
        for i in range(count):
            stride = 2 if k > 1 and i == 0 else 1
            layers, outputs = branch(recipe, inputs, width, stride)
            project = recipe.conv_norm(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else None
            units.append(ResidualUnit(layers, project, recipe.make_neuron()))
            inputs = outputs
        stages[f"stage{k}"] = Stage(*units, channels=inputs, stride=2 if k > 1 or pool else 1)
    return Network(recipe, stages, *pooled_head(recipe, inputs, **head))
