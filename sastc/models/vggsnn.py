"""VGGSNN (Deng et al. 2022), the network of DVS-CIFAR10: VGG-11's convolutions, pooled, and one linear layer."""

from torch import nn

from sastc.models.layers import Recipe
from sastc.models.network import Network
from sastc.models.vgg import VGG11, _pool, _stages, halved


def vggsnn(recipe: Recipe) -> Network:
    """64, 128, pool, 256, 256, pool, 512, 512, pool, 512, 512, pool, then one linear layer on all pixels that are left.

    Average pools of 2, as in TET's code. Unlike VGG-11 it keeps every pixel of a larger input: 3x3 of 48x48.
    """
    stages = _stages(recipe, VGG11, [None] + [nn.AvgPool2d] * 3)
    side, sides = halved(recipe.image_size)
    classifier = nn.Sequential(nn.Linear(stages["stage4"].channels * side**2, recipe.num_classes))
    return Network(recipe, stages, nn.Sequential(_pool(nn.AvgPool2d), nn.Flatten(-3)), classifier, sides=sides)
