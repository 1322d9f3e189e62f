"""VGG (Simonyan & Zisserman 2015) for small images: five groups of 3x3 convolutions with bias and batch norm.

VGGSNN (Deng et al. 2022), the network of DVS-CIFAR10, has VGG-11's convolutions.
"""

from itertools import pairwise

from torch import nn

from sastc.models.layers import ConvUnit, Encoder, PerStep, Recipe, Stage, pooled_head
from sastc.models.network import Network

VGG11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))
VGG13 = ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512))


def vgg11(recipe: Recipe, downsample: str, head: str) -> Network:
    """VGG-11: eight convolutions and up to three linear layers.

    `downsample` is "stride", 2 in convolutions 2, 4, 6 and 8, or "pool": stride 1 and an average pool of 2 behind each
    of them. `head` is "stacked", linear layers of 4096, 4096 and N outputs, without neurons and dropout between them,
    or "single", one of N.
    """
    # paper: only the name  released: stride 2, its average pools are commented out; three linear layers in a row
    pool = downsample == "pool"  # taps stand before the pool, where the spikes are
    stages = _stages(recipe, VGG11, [None] + [nn.AvgPool2d] * 3 if pool else [None] * 4, stride=1 if pool else 2)
    side, sides = halved(recipe.image_size)
    neck = [_pool(nn.AvgPool2d)] if pool else []
    if side > 2:  # 2x2 at 32 pixels; larger images are averaged down to it, so that the head keeps its size
        neck.append(PerStep(nn.AdaptiveAvgPool2d(2)))
    neck.append(nn.Flatten(-3))
    flat, hidden = stages["stage4"].channels * min(side, 2) ** 2, recipe.channels(4096)
    sizes: tuple[int, ...] = (flat, hidden, hidden) if head == "stacked" else (flat,)
    sizes += (recipe.num_classes,)
    classifier = nn.Sequential(*(nn.Linear(*pair) for pair in pairwise(sizes)))
    return Network(recipe, stages, nn.Sequential(*neck), classifier, sides=sides if side <= 2 else None)


def vgg13(recipe: Recipe) -> Network:
    """VGG-13 as in RepDistiller: ten convolutions, max-pools between the groups, global pool, one linear layer.

    The pool before the last group is there from 64 pixels on.
    """
    pools = [nn.MaxPool2d] * (4 if recipe.image_size >= 64 else 3)
    stages = _stages(recipe, VGG13, [*pools, None][:4])
    return Network(recipe, stages, *pooled_head(recipe, stages["stage4"].channels))


def vggsnn(recipe: Recipe, init: str = "pytorch") -> Network:
    """64, 128, pool, 256, 256, pool, 512, 512, pool, 512, 512, pool, then one linear layer on all pixels that are left.

    Average pools of 2, as in TET's code. Unlike VGG-11 it keeps every pixel of a larger input: 3x3 of 48x48.

    `init` draws the convolutions' weights: "pytorch" is its default, of variance 1/(27 · inputs), "he" TET's,
    normal of variance 2/(9 · outputs) (He et al. 2015), √6 times as large where inputs and outputs are as many. A batch
    norm behind every convolution takes the factor out again, so the first firing rates are the same, but a gradient
    step turns the larger weights by a sixth of the angle, as if their learning rate were so much smaller at first.
    """
    stages = _stages(recipe, VGG11, [None] + [nn.AvgPool2d] * 3)
    side, sides = halved(recipe.image_size)
    classifier = nn.Sequential(nn.Linear(stages["stage4"].channels * side**2, recipe.num_classes))
    network = Network(recipe, stages, nn.Sequential(_pool(nn.AvgPool2d), nn.Flatten(-3)), classifier, sides=sides)
    # paper: silent  TET: He's
    if init == "he":
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return network


def halved(image_size: int) -> tuple[int, range]:
    """What four halvings, each rounded up, leave of `image_size` pixels, and all sizes that leave the same."""
    side = -(-image_size // 16)
    return side, range(16 * (side - 1) + 1, 16 * side + 1)


def _pool(kind: type[nn.Module]) -> PerStep:
    return PerStep(kind(2, ceil_mode=True))  # ceil: an image of one pixel stays one


def _stages(recipe: Recipe, groups: tuple, pools: list, stride: int = 1) -> dict[str, Stage]:
    """Stem and stages 1 to 4; ``pools[k]`` stands before stage k+1, `stride` is that of a stage's last convolution."""
    stages, inputs = {}, recipe.in_channels
    for k, group in enumerate(groups):
        pool = pools[k - 1] if k else None
        units: list[nn.Module] = [_pool(pool)] if pool else []
        for i, width in enumerate(map(recipe.channels, group)):
            step = stride if k and i == len(group) - 1 else 1
            layers = recipe.conv_norm(inputs, width, stride=step, bias=True)
            if k == i == 0:
                units.append(Encoder(layers, recipe.make_neuron(), recipe.timesteps))
            else:
                units.append(ConvUnit(layers, recipe.make_neuron()))
            inputs = width
        factor = (2 if pool else 1) * (stride if k else 1)
        stages[f"stage{k}" if k else "stem"] = Stage(*units, channels=inputs, stride=factor)
    return stages
