"""What the book's example uses of snnTorch's documented interface, for where it is not installed."""

import torch
from torch import Tensor, nn


class Leaky(nn.Module):
    """One step of a leaky neuron: ``spikes, potential = neuron(current, potential)``; the reset comes a step later."""

    def __init__(self, beta: float, threshold: float = 1.0, reset_mechanism: str = "subtract"):
        super().__init__()
        assert reset_mechanism == "zero", "all that the example asks for"
        self.beta, self.threshold = beta, threshold

    def reset_mem(self) -> Tensor:
        return torch.zeros(())

    def forward(self, current: Tensor, potential: Tensor) -> tuple[Tensor, Tensor]:
        reset = (potential > self.threshold).float().detach()
        potential = (self.beta * potential + current) * (1 - reset)
        above = potential - self.threshold
        smooth = torch.atan(torch.pi * above) / torch.pi  # the gradient
        return (above > 0).float() + smooth - smooth.detach(), potential
