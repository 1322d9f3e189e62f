"""A network of one's own, with the functions of the library's."""

from typing import Any

import torch
from torch import Tensor, nn

from sastc.checks import check


class OwnNetwork(nn.Module):
    """What trains, tests and measures any `network` as one of :class:`sastc.models.Network`.

    A student is called on images ``(B, C, H, W)``, or on sequences ``(T, B, C, H, W)`` of event data, and returns its S
    candidate layers ``(T, B, C, H, W)`` and the logits of every step ``(T, B, N)``. A teacher is called on images and
    returns its A layers ``(B, C, H, W)`` and its logits ``(B, N)``; of a sequence it sees the mean frame, or each frame
    (`frames`, see :func:`sastc.create_model`). Its `classifier` is the attribute of this name, or else the last linear
    layer; its ``last_map(x)``, where it has one, turns its last layer into what is averaged before the classifier.

    Layers are named "layer1", "layer2", ... Their sizes are found by running two images of zeros.

    Raises
    ------
    ValueError
        The network is no module, or returns something else.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str,
        *,
        spiking: bool,
        num_classes: int,
        in_channels: int,
        image_size: int,
        timesteps: int = 1,
        sequences: bool = False,
        frames: str = "mean_frame",
    ):
        super().__init__()
        check(name, network, isinstance(network, nn.Module), "a function that returns an nn.Module")
        self.network, self.name, self.spiking = network, name, spiking
        self.in_channels, self.image_size = in_channels, image_size
        self.timesteps, self._frames = timesteps if spiking else 1, frames
        zeros = torch.zeros(2, in_channels, image_size, image_size)
        found = self._tried(zeros.expand(timesteps, -1, -1, -1, -1) if sequences and spiking else zeros, num_classes)
        self._shapes = [tuple(x.shape[-3:]) for x in found]
        self.tap_names = [f"layer{k}" for k in range(1, len(found) + 1)]

    def _tried(self, x: Tensor, classes: int) -> list[Tensor]:
        """Layers of two images; a ValueError unless these and the logits are as they must be."""
        self.network.eval()
        with torch.no_grad():
            found = self.network(x)
        self.network.train()
        lead = (self.timesteps, 2) if self.spiking else (2,)
        what, sizes = ("(T, B, C, H, W)", "(T, B, N)") if self.spiking else ("(B, C, H, W)", "(B, N)")
        wanted = f"a list of layers {what} and logits {sizes}, here T={self.timesteps}, B=2, N={classes}"
        valid = isinstance(found, (tuple, list)) and len(found) == 2 and isinstance(found[0], (tuple, list))
        check(f"{self.name} returns", type(found).__name__, valid, wanted)
        layers, logits = found
        shapes = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in (*layers, logits)]
        valid = all(len(shape) == len(lead) + 3 and shape[: len(lead)] == lead for shape in shapes[:-1])
        check(f"{self.name} returns", shapes, bool(layers) and valid and shapes[-1] == (*lead, classes), wanted)
        return list(layers)

    @property
    def classifier(self) -> nn.Module:
        """The last linear layer."""
        if (own := getattr(self.network, "classifier", None)) is not None:
            return own
        linear = [module for module in self.network.modules() if isinstance(module, nn.Linear)]
        check(f"{self.name}.classifier", None, bool(linear), "a linear layer for this method")
        return linear[-1]

    def features(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Candidate layers, and logits (B, N), the mean over time."""
        layers, logits = self.features_and_step_logits(x)
        return layers, logits.mean(0)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, N)."""
        return self.features(x)[1]

    def step_logits(self, x: Tensor) -> Tensor:
        """Logits of every step, (T, B, N); (1, B, N) for an ANN."""
        return self.features_and_step_logits(x)[1]

    def features_and_step_logits(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Candidate layers, and :meth:`step_logits`, of one forward pass."""
        if self.spiking:
            return self.network(x)
        if x.dim() == 4 or self._frames == "mean_frame":
            layers, logits = self.network(x if x.dim() == 4 else x.mean(0))
            return layers, logits.unsqueeze(0)
        layers, logits = self.network(x.flatten(0, 1))
        return [layer.unflatten(0, x.shape[:2]) for layer in layers], logits.unflatten(0, x.shape[:2]).mean(0)[None]

    def logits_by_step(self, x: Tensor) -> Tensor:
        """Logits (T, B, N) after t = 1 ... T steps."""
        outputs = self.step_logits(x)
        steps = torch.arange(1, len(outputs) + 1, dtype=outputs.dtype, device=outputs.device)
        return outputs.cumsum(0) / steps.view(-1, 1, 1)

    def last_map(self, x: Tensor) -> Tensor:
        """The last candidate layer as the classifier's average over pixels sees it."""
        own: Any = getattr(self.network, "last_map", None)
        return x if own is None else own(x)

    def feature_shapes(self) -> list[tuple[int, int, int]]:
        """(C, H, W) of every candidate layer."""
        return self._shapes
