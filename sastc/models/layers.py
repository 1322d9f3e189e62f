"""Building blocks of every network.

An ANN passes (B, C, H, W) through them, an SNN (T, B, C, H, W); only neurons mix time steps. A network is a
chain of *stages*, a stage a chain of *units*. The last unit of a stage is the place where the network is tapped.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sastc.recompute import recomputed, wanted


@dataclass(frozen=True)
class Recipe:
    """What all layers of one network have in common; :func:`sastc.models.create_model` explains the fields."""

    name: str
    make_neuron: Callable[[], nn.Module]
    spiking: bool
    num_classes: int = 10
    in_channels: int = 3
    image_size: int = 32
    width: float = 1.0
    timesteps: int | None = 2  # None in an ANN
    taps: str = "stages"
    tap: str = "spikes"
    output: str = "mean_current"
    leak: float = 0.5  # λ of a leaky output membrane
    norm_gain: float = 1.0  # initial scale of the batch norms
    frames: str = "mean_frame"

    def channels(self, count: float) -> int:
        """Published channel count times the width factor, rounded, at least 4."""
        return max(4, round(count * self.width))

    def norm(self, channels: int) -> nn.BatchNorm2d:
        """Batch norm over batch, pixels and, by folding, time.

        tdBN (Zheng et al. 2021) normalises to α·V_th instead of 1. Here this is the initial value of the learned scale:
        the same functions, and a batch norm that can be synchronised over GPUs.
        """
        norm = nn.BatchNorm2d(channels)
        nn.init.constant_(norm.weight, self.norm_gain)
        return norm

    def conv_norm(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, bias: bool = False) -> "PerStep":
        """Convolution that keeps the size (up to its stride), then batch norm."""
        return PerStep(Conv(inputs, outputs, kernel, stride, bias), self.norm(outputs))


class Conv(nn.Conv2d):
    """Square convolution with odd `kernel` that pads by half of it; the output side is ``ceil(side / stride)``.

    Two errors of oneDNN are avoided, by the same function of fewer numbers. On a map of one pixel only the kernel's
    centre meets the image: in bf16 with stride 2 the gradients of the other weights would be whatever lay in memory. A
    1x1 convolution with a stride and fewer than 8 input channels, in fp32 and channels last, is given the pixels that
    it reads alone: without AVX-512 it would write past its buffer, which ends the process or gives wrong gradients.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, bias: bool = False):
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H', W')."""
        if x.shape[-2:] == (1, 1):
            centre = slice(self.kernel_size[0] // 2, self.kernel_size[0] // 2 + 1)
            return F.conv2d(x, self.weight[..., centre, centre], self.bias)
        if self._overruns(x):  # elsewhere the order of the sums, and so the last bit, stays what it was
            return F.conv2d(x[..., :: self.stride[0], :: self.stride[1]], self.weight, self.bias)
        return super().forward(x)

    def _overruns(self, x: Tensor) -> bool:
        narrow = self.kernel_size == (1, 1) and self.stride != (1, 1) and self.in_channels < 8
        plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        return narrow and plain and (x.stride(1) == 1 or self.weight.stride(-1) > 1)  # either asks for channels last


class PerStep(nn.Sequential):
    """Layers that treat all time steps alike: (T, B, C, H, W) goes through as (T·B, C, H, W), (B, C, H, W) as it is."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers to every time step."""
        if x.dim() == 4:
            return super().forward(x)
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Unit(nn.Module):
    """A piece of network that ends in a neuron, or the identity: ``forward(x) = neuron(current(x))``."""

    def __init__(self, neuron: nn.Module | None = None):
        super().__init__()
        self.neuron = nn.Identity() if neuron is None else neuron

    def current(self, x: Tensor) -> Tensor:
        """Input current of the last neuron."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Output of the unit."""
        return self.neuron(self.current(x))


class ConvUnit(Unit):
    """Convolution (and norm), then the neuron."""

    def __init__(self, conv: PerStep, neuron: nn.Module | None = None):
        super().__init__(neuron)
        self.conv = conv

    def current(self, x: Tensor) -> Tensor:
        """Convolved input."""
        return self.conv(x)


class Encoder(ConvUnit):
    """First unit of a network. In an SNN it turns a static image into a current that is the same at every step.

    The convolution and its norm run once on the (B, C, H, W) image and the result is shown T times, which is what
    repeating the image T times gives. In training, too, the batch statistics are the same; only the running variance
    differs, by the unbiased estimate's n/(n-1), where n = B·H·W is counted once instead of T times.
    """

    def __init__(self, conv: PerStep, neuron: nn.Module | None, timesteps: int | None):
        super().__init__(conv, neuron)
        self.timesteps = timesteps  # None in an ANN

    def current(self, x: Tensor) -> Tensor:
        """Currents (T, B, C, H, W) of a static image or of a sequence (T, B, C, H, W)."""
        current = self.conv(x)
        repeated = self.timesteps is not None and x.dim() == 4
        return current.expand(self.timesteps, *current.shape) if repeated else current


class ResidualUnit(Unit):
    """``neuron(branch(x) + shortcut(x))``: the sum fires, as in ResNet the ReLU follows the addition."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None, neuron: nn.Module | None = None):
        super().__init__(neuron)
        self.branch = branch
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def current(self, x: Tensor) -> Tensor:
        """Residual sum; a shortcut with fewer channels is filled up with zeros."""
        branch, shortcut = self.branch(x), self.shortcut(x)
        missing = branch.shape[-3] - shortcut.shape[-3]
        return branch + (F.pad(shortcut, (0, 0, 0, 0, 0, missing)) if missing else shortcut)


class Stage(nn.Sequential):
    """Units up to a tap, which shows the output of the last :class:`Unit`, or its neuron's potential.

    The tap has so many `channels`; the stage shrinks its input's side to ``ceil(side / stride)``.
    """

    recompute = False  # keep of every unit its input alone for the backward pass, see sastc.recompute

    def __init__(self, *units: nn.Module, channels: int, stride: int = 1):
        super().__init__(*units)
        self.channels, self.stride = channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """Output of the stage."""
        return self._through(self, x)

    def _through(self, units: Iterable[nn.Module], x: Tensor) -> Tensor:
        for unit in units:
            x = recomputed(unit, x, owner=unit) if wanted(self) else unit(x)
        return x

    def with_membrane(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Output of the stage, and the membrane potential u^t before reset of its last neuron."""
        *body, last = self
        current = last.current(self._through(body, x))
        return last.neuron(current), last.neuron.membrane(current)


def residual_stem(recipe: Recipe, channels: int, *, norm: bool = True, fire: bool = True) -> tuple[Stage, list]:
    """Stem of a residual network, and what stands before its first block.

    A 3x3 convolution as in all CIFAR networks; for images of 128 pixels and more the ImageNet stem of He et al. (2016),
    a 7x7 convolution with stride 2 and a 3x3 max-pool with stride 2. The stem is tapped before that pool.
    """
    channels = recipe.channels(channels)
    large = recipe.image_size >= 128
    kernel, stride = (7, 2) if large else (3, 1)
    layers = [Conv(recipe.in_channels, channels, kernel, stride)] + ([recipe.norm(channels)] if norm else [])
    encoder = Encoder(PerStep(*layers), recipe.make_neuron() if fire else None, recipe.timesteps)
    pool = [PerStep(nn.MaxPool2d(3, stride=2, padding=1))] if large else []
    return Stage(encoder, channels=channels, stride=stride), pool


def pooled_head(recipe: Recipe, channels: int, *, head: str = "single", hidden_init: str = "balanced") -> tuple:
    """Neck and classifier: global average pool, then a linear layer; in an SNN with `head` "hidden" two and a neuron.

    The neck ends with the network's last neuron (or the pool behind it), the classifier is linear.

    `hidden_init` draws the hidden layer's weights, for F input `channels`. "released" is PyTorch's default,
    U(-1/√F, 1/√F): the firing rates behind the pool are about 1/4, so the currents are about 0.13, no neuron fires, and
    hardly a potential comes within γ = 0.3 of the threshold. By Eq. 11 the classification loss then has no gradient, or
    almost none, at γ = 0.3 (the released γ = 1 has one). "balanced" draws N(0, 16/F): currents of about unit variance,
    as the batch norms give to all other neurons.
    """
    neck = [PerStep(nn.AdaptiveAvgPool2d(1), nn.Flatten())]
    # paper: silent  released: students (SNN) have a hidden layer of 256 LIF neurons, teachers (ANN) have none
    if recipe.spiking and head == "hidden":
        linear = nn.Linear(channels, recipe.channels(256))
        if hidden_init == "balanced":
            nn.init.normal_(linear.weight, std=4 * recipe.norm_gain / channels**0.5)
        neck += [linear, recipe.make_neuron()]
        channels = linear.out_features
    return nn.Sequential(*neck), nn.Sequential(nn.Linear(channels, recipe.num_classes))
