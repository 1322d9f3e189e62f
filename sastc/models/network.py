"""The library's network class: a chain of tapped stages, a neck, a linear classifier."""

import torch
from torch import Tensor, nn

from sastc.checks import check, is_count
from sastc.models.layers import Recipe, Stage


class Distillable(nn.Module):
    """What any network shows that trains here; it has itself ``features`` and ``features_and_step_logits``."""

    def features(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Candidate layers, and logits (B, N): the mean over time."""
        layers, logits = self.features_and_step_logits(x)
        return layers, logits.mean(0)

    def features_and_step_logits(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Candidate layers as of :meth:`features`, and :meth:`step_logits`, of one forward pass."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, N): the mean over time of :meth:`step_logits`."""
        return self.features(x)[1]

    def step_logits(self, x: Tensor) -> Tensor:
        """Output of every step, (T, B, N); (1, B, N) for an ANN."""
        return self.features_and_step_logits(x)[1]

    def logits_by_step(self, x: Tensor) -> Tensor:
        """Logits (T, B, N) after t = 1 ... T steps: those of :meth:`forward`, up to rounding, if it stopped there.

        (1, B, N) for an ANN. In training mode the batch norms have seen all T steps.
        """
        outputs = self.step_logits(x)
        steps = torch.arange(1, len(outputs) + 1, dtype=outputs.dtype, device=outputs.device)
        return outputs.cumsum(0) / steps.view(-1, 1, 1)


class Network(Distillable):
    """An ANN or SNN classifier that shows its candidate layers; :func:`sastc.create_model` builds one.

    `stages` are "stem", "stage1", ... in the order of computation; those `untapped` are no candidate layers. The `neck`
    leads from the last one's output to the vector before the affine `classifier`, neurons included. `sides` are the
    heights and widths of images, in pixels, that leave as much for the classifier as it takes; None: all do.

    Attributes
    ----------
    timesteps : int
        T for static images (1 in an ANN); may be set.
    tap_names : list of str
        Names of the candidate layers, in the order of :meth:`features`.

    Notes
    -----
    Initial weights are those of the released code's networks: an SNN keeps PyTorch's defaults, the convolutions of an
    ANN are drawn by He's method (normal, fan-out) with biases of zero. Linear layers have PyTorch's defaults in both;
    the released WRN alone starts its last bias at zero, and RepDistiller's VGG its last weights at N(0, 0.01²). The
    hidden layer of a spiking residual network is the exception, see :func:`sastc.models.layers.pooled_head`.
    """

    def __init__(
        self,
        recipe: Recipe,
        stages: dict[str, Stage],
        neck: nn.Module,
        classifier: nn.Module,
        untapped: tuple[str, ...] = (),
        sides: range | None = None,
    ):
        super().__init__()
        self.name, self.spiking, self.output = recipe.name, recipe.spiking, recipe.output
        self._mean_frame = not recipe.spiking and recipe.frames == "mean_frame"
        self._leak, self._sides = recipe.leak, sides
        self.in_channels, self.image_size = recipe.in_channels, recipe.image_size
        self.stages, self.neck, self.classifier = nn.ModuleDict(stages), neck, classifier
        # paper: Fig. 2 counts the stem  released: SASTC leaves out the stem and the vector before the classifier
        untapped += ("stem",) if recipe.taps == "stages" else ()
        self.tap_names = [name for name in stages if name not in untapped]
        self._membrane_taps = recipe.tap == "membrane"
        without = [name for name in self.tap_names if not hasattr(stages[name][-1].neuron, "membrane")]
        if self._membrane_taps and without:
            raise ValueError(
                f"tap='membrane': {self.name} has no neuron with a membrane at the end of {', '.join(without)}; "
                "allowed here: 'spikes'"
            )
        if not self.spiking:
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)

    @property
    def timesteps(self) -> int:
        """Steps T that a static image is repeated for; 1 in an ANN."""
        return self.stages["stem"][0].timesteps or 1

    @timesteps.setter
    def timesteps(self, timesteps: int) -> None:
        check("timesteps", timesteps, self.spiking and is_count(timesteps), "an integer >= 1, in an SNN alone")
        self.stages["stem"][0].timesteps = int(timesteps)

    def features(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Candidate layers, one for each of `tap_names`, and logits (B, N).

        `x` are images (B, C, H, W), or a sequence (T, B, C, H, W) with any T, of which an ANN sees the mean frame, or
        each frame for itself ("per_step", see :func:`sastc.create_model`). Layers are (B, C, H, W) of an ANN, and
        (T, B, C, H, W) of an SNN or of an ANN that sees each frame: spikes or ReLU outputs, membrane potentials if
        asked for, or the sums of a pre-activation network.

        Raises
        ------
        ValueError
            An input of another shape, or images of a size that the classifier cannot take.
        """
        features, z = self._run(x)
        if self.spiking and self.output == "mean_current":
            z = z.mean(0)  # affine, so the mean over time may go first: the classifier runs once
            return features, self.classifier(z)
        return features, self._steps(z).mean(0)

    def features_and_step_logits(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Candidate layers as of :meth:`features`, and :meth:`step_logits`, of one forward pass."""
        features, z = self._run(x)
        return features, self._steps(z)

    def last_map(self, x: Tensor) -> Tensor:
        """The last of :meth:`features`, (B, C, H, W) or (T, B, C, H, W), as the pool behind it sees it.

        A pre-activation network has a norm and a neuron between the two; of all others this is `x` itself.
        """
        for layer in self.neck:
            after = layer(x)
            if after.shape != x.shape:
                break
            x = after
        return x

    def feature_shapes(self) -> list[tuple[int, int, int]]:
        """(C, H, W) of every tapped layer at the network's image size, without running it."""
        shapes, side = {}, self.image_size
        for name, stage in self.stages.items():
            side = -(-side // stage.stride)
            shapes[name] = (stage.channels, side, side)
        return [shapes[name] for name in self.tap_names]

    def _run(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Tapped layers, and the vector before the classifier: (B, F) or (T, B, F)."""
        if x.dim() not in (4, 5) or x.shape[-3] != self.in_channels:
            allowed = f"(B, {self.in_channels}, H, W) or (T, B, {self.in_channels}, H, W)"
            raise ValueError(f"x has shape {tuple(x.shape)}: {self.name} takes {allowed}")
        if self._sides and not all(side in self._sides for side in x.shape[-2:]):
            allowed = f"{self._sides[0]} to {self._sides[-1]} pixels high and wide"
            raise ValueError(
                f"x has shape {tuple(x.shape)}: {self.name} of image_size={self.image_size} takes images {allowed}; "
                "build it with the image_size of these"
            )
        if not x.is_floating_point():
            raise ValueError(f"x has dtype {x.dtype}: {self.name} takes floating-point images, normalised")
        if x.dim() == 5 and self._mean_frame:
            x = x.mean(0)
        taps = {}
        for name, stage in self.stages.items():
            if self._membrane_taps and name in self.tap_names:
                x, taps[name] = stage.with_membrane(x)
            else:
                x = taps[name] = stage(x)
        return [taps[name] for name in self.tap_names], self.neck(x)

    def _steps(self, z: Tensor) -> Tensor:
        current = self.classifier(z if z.dim() == 3 else z.unsqueeze(0))
        # paper: mean membrane potential of the last layer  released: mean of its linear output
        if self.output == "mean_current" or not self.spiking:
            return current
        potentials = [current[0]]  # u^t = λ u^{t-1} + I^t, no threshold, no reset
        for step in current[1:]:
            potentials.append(self._leak * potentials[-1] + step)
        return torch.stack(potentials)
