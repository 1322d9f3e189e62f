"""What the book's example uses of SpikingJelly's documented interface, for where it is not installed."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn


class _Steps:
    """A layer with a step mode: "s" takes (B, ...), "m" takes (T, B, ...)."""

    step_mode = "s"

    def forward(self, x: Tensor) -> Tensor:
        if self.step_mode == "s":
            return super().forward(x)
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Conv2d(_Steps, nn.Conv2d):
    pass


class BatchNorm2d(_Steps, nn.BatchNorm2d):
    pass


class PiecewiseQuadratic:
    """A step whose gradient is alpha - alpha² |x| where that is above zero."""

    def __init__(self, alpha: float = 1.0):
        self.alpha = alpha

    def __call__(self, x: Tensor) -> Tensor:
        slope = (self.alpha - self.alpha**2 * x.abs()).clamp_min(0).detach()
        return (x >= 0).float() + slope * (x - x.detach())


class LIFNode(nn.Module):
    """A leaky neuron that keeps its potential until it is reset."""

    step_mode = "s"

    def __init__(self, tau: float, decay_input: bool, v_reset: float, surrogate_function: PiecewiseQuadratic):
        super().__init__()
        assert not decay_input
        assert v_reset == 0, "all that the example asks for"
        self.leak, self.fire, self.v = 1 - 1 / tau, surrogate_function, 0.0

    def forward(self, x: Tensor) -> Tensor:
        spikes = []
        for current in x if self.step_mode == "m" else x[None]:
            charged = self.leak * self.v + current  # of other sizes than before: an error, as there
            spikes.append(self.fire(charged - 1))
            self.v = charged * (1 - spikes[-1])
        return torch.stack(spikes) if self.step_mode == "m" else spikes[0]


def set_step_mode(network: nn.Module, mode: str) -> None:
    for module in network.modules():
        if hasattr(module, "step_mode"):
            module.step_mode = mode


def reset_net(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, LIFNode):
            module.v = 0.0


functional = SimpleNamespace(set_step_mode=set_step_mode, reset_net=reset_net)
layer = SimpleNamespace(Conv2d=Conv2d, BatchNorm2d=BatchNorm2d)
neuron = SimpleNamespace(LIFNode=LIFNode)
surrogate = SimpleNamespace(PiecewiseQuadratic=PiecewiseQuadratic)
