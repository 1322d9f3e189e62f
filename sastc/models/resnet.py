"""ResNet (He et al. 2016). In an SNN the neuron fires after the residual addition, where the ReLU stands in an ANN."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from sastc.models.layers import Recipe, ResidualUnit, Stage, pooled_head, residual_stem
from sastc.models.network import Network


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
    """Post-activation ResNet.

    Parameters
    ----------
    recipe : Recipe
    blocks : sequence of int
        Residual blocks in each stage; every stage but the first halves the image.
    planes : sequence of int
        Published channel count of each stage.
    stem : int
        Published channel count of the stem.
    branch : {basic, bottleneck}
        Residual branch.
    **head : str
        Linear layers of an SNN, see :func:`sastc.models.layers.pooled_head`.
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


def resnet18(recipe: Recipe, variant: str, **head: Any) -> Network:
    """ResNet-18: "released" as the authors' student, "standard" as He et al. published it."""
    # paper: only the name  released: three stages, the trunk otherwise known as ResNet-19
    if variant == "released":
        return resnet19(recipe, **head)
    return resnet(recipe, (2, 2, 2, 2), (64, 128, 256, 512), **head)


def resnet19(recipe: Recipe, **head: Any) -> Network:
    """ResNet-19 (Zheng et al. 2021), the released teacher."""
    return resnet(recipe, (3, 3, 2), (128, 256, 512), **head)


def resnet34(recipe: Recipe, **head: Any) -> Network:
    """ResNet-34."""
    return resnet(recipe, (3, 4, 6, 3), (64, 128, 256, 512), **head)


def resnet32x4(recipe: Recipe, **head: Any) -> Network:
    """ResNet-32x4 as in RepDistiller: the CIFAR ResNet of depth 32 with four times the channels (twice in the stem)."""
    return resnet(recipe, (5, 5, 5), (64, 128, 256), stem=32, **head)


def bottleneck16(recipe: Recipe, **head: Any) -> Network:
    """The network that the released code calls WRN-16-2: bottlenecks [2, 1, 1] with 512, 1024 and 2048 outputs."""
    return resnet(recipe, (2, 1, 1), (128, 256, 512), branch=bottleneck, **head)
