"""Small networks that several tests build."""

import torch
from torch import nn

from sastc.models import MODELS, Network, create_model
from sastc.neurons import LIF

WIDE = {"wrn16_2_variant": "wide_resnet"}
STANDARD = {"resnet18_variant": "standard"}
VARIANTS = [(name, {}) for name in MODELS] + [
    ("resnet18", STANDARD),
    ("wrn16_2", WIDE),
    ("vgg11", {"vgg_downsample": "pool", "vgg_head": "single"}),
    ("pyramidnet20", {"pyramidnet_taps": "all", "resnet_head": "single"}),
]
PRE_ACTIVATION = [("wrn28_4", {}), ("wrn40_2", {}), ("wrn16_2", WIDE), ("pyramidnet20", {})]


def ids(value):
    return "-".join(map(str, value.values())) if isinstance(value, dict) else "" if callable(value) else None


def small(name, neuron="lif", *, seed=0, **options) -> Network:
    """A narrow float64 network in eval mode, its batch norms away from their initial state but fit for its activity."""
    torch.manual_seed(seed)
    net = create_model(name, neuron, **{"width": 0.07, "image_size": 16, "taps": "stem_and_stages"} | options).double()
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        nn.init.uniform_(norm.weight, 0.7, 1.4)
        nn.init.uniform_(norm.bias, -0.2, 0.4)
    with torch.no_grad():
        net.train()(images(8, net.image_size, net.in_channels, seed=7))
    for norm in norms:
        norm.momentum = 0.1
    return net.eval()


def images(batch=3, size=16, channels=3, seed=1):
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Doubled(nn.Module):
    """A neuron of somebody else's: fires twice as high."""

    def __init__(self, decay=0.5):
        super().__init__()
        self.lif = LIF(decay)

    def forward(self, x):
        return 2 * self.lif(x)
