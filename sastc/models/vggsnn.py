"""VGGSNN (Deng et al. 2022), the network of DVS-CIFAR10: VGG-11's convolutions, pooled, and one linear layer."""

from torch import nn

from sastc.models.layers import Recipe
from sastc.models.network import Network
from sastc.models.vgg import VGG11, _pool, _stages, halved


def vggsnn(recipe: Recipe, init: str = "pytorch") -> Network:
    """64, 128, pool, 256, 256, pool, 512, 512, pool, 512, 512, pool, then one linear layer on all pixels that are left.

    Average pools of 2, as in TET's code. Unlike VGG-11 it keeps every pixel of a larger input: 3x3 of 48x48.

    Parameters
    ----------
    recipe : Recipe
    init : {"pytorch", "he"}
        First weights of the convolutions. "pytorch" is its default, of variance 1/(27 · inputs). "he" is TET's: normal
        of variance 2/(9 · outputs) (He et al. 2015), √6 = 2.45 times as large where inputs and outputs are as many, √3
        times where the outputs are twice the inputs, smaller in the first one. A batch norm behind every convolution
        takes the factor out again, so the first firing rates are the same; but a gradient step turns weights that
        are √6 times as large by a sixth of the angle only, as if their learning rate were so much smaller at first.
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
