"""A network of one's own, with the functions of the library's."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sastc.fisher import fisher_trace
from sastc.losses import exact
from sastc.models.network import Distillable
from sastc.records import RunError
from sastc.references import Own, told


class OwnNetwork(Distillable):
    """What trains, tests and measures any network as one of :class:`sastc.models.Network`.

    A student is called on images ``(B, C, H, W)``, or on sequences ``(T, B, C, H, W)`` of event data, and returns its S
    candidate layers ``(T, B, C, H, W)`` and the logits of every step ``(T, B, N)``. A teacher is called on images and
    returns its A layers ``(B, C, H, W)`` and its logits ``(B, N)``; of a sequence it sees the mean frame, or each frame
    (`frames`, see :func:`sastc.create_model`). Its `classifier` is the attribute of this name, or else the last linear
    layer; its ``last_map(x)``, where it has one, turns its last layer into what is averaged before the classifier.

    Layers are named "layer1", "layer2", ... Their sizes are found by running images of zeros.

    Parameters
    ----------
    own : Own
        Builds the network.
    given : dict
        What it may ask for, see :func:`sastc.config.arguments`.
    timesteps : int
        T of a student.
    spiking, sequences : bool
        Whether it is a student, and whether the data are sequences.

    Raises
    ------
    RunError
        The code fails, or what it returns is not as above; the message names the network, and the line in its file.
    """

    def __init__(
        self,
        own: Own,
        given: dict[str, Any],
        timesteps: int,
        spiking: bool,
        sequences: bool,
        frames: str = "mean_frame",
    ):
        super().__init__()
        self.name, self.spiking, self.timesteps = own.name, spiking, timesteps if spiking else 1
        self._own, self._frames, self._sequences = own, frames, sequences and spiking
        self.in_channels, self.image_size = given["in_channels"], given["image_size"]
        with self.blamed("cannot be built"):
            network = own.build(given)
        self._demand(isinstance(network, nn.Module), f"built {type(network).__name__}", "an nn.Module")
        self._demand("_sastc_taken" not in vars(network), "built the same object twice", "a new one each time")
        vars(network)["_sastc_taken"] = True
        self.network = network
        self._shapes = [tuple(x.shape[-3:]) for x in self._tried(given["num_classes"])]
        self.tap_names = [f"layer{k}" for k in range(1, len(self._shapes) + 1)]

    @contextlib.contextmanager
    def blamed(self, what: str) -> Iterator[None]:
        """Turn an error of the network's code into a RunError that names it."""
        try:
            yield
        except RunError:
            raise
        except Exception as error:  # anybody's code
            words = told(error, self._own.path)
            raise RunError(f"network {self._own.reference} {what}: {words}") from error

    def _demand(self, valid: bool, found: str, wanted: str) -> None:
        if not valid:
            raise RunError(f"network {self._own.reference} {found}: must be {wanted}")

    def images(self, count: int) -> Tensor:
        """Images of zeros, or sequences of them."""
        zeros = torch.zeros(count, self.in_channels, self.image_size, self.image_size)
        return zeros.expand(self.timesteps, *zeros.shape) if self._sequences else zeros

    def _tried(self, classes: int) -> list[Tensor]:
        """Layers of T + 1 images; a RunError unless these and the logits are as they must be."""
        batch, before = self.timesteps + 1, {name: tuple(x.shape) for name, x in _tensors(self.network)}
        with self.blamed(f"fails on {batch} images"), torch.no_grad():
            tried = copy.deepcopy(self.network).eval()
            found = tried(self.images(batch))
        changed = [name for name, x in _tensors(tried) if before.get(name) != tuple(x.shape)]
        self._demand(not changed, f"changes the shape of {', '.join(changed)}", "persistent=False, as it is no weight")
        lead = (self.timesteps, batch) if self.spiking else (batch,)
        what, sizes = ("(T, B, C, H, W)", "(T, B, N)") if self.spiking else ("(B, C, H, W)", "(B, N)")
        here = ", ".join(f"{n}={v}" for n, v in zip("TB" if self.spiking else "B", lead, strict=True))
        wanted = f"a list of layers {what} and logits {sizes}, here {here}, N={classes}"
        pair = isinstance(found, (tuple, list)) and len(found) == 2 and isinstance(found[0], (tuple, list))
        self._demand(pair, f"returns {type(found).__name__}", wanted)
        layers, logits = found
        shapes = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in (*layers, logits)]
        valid = all(len(shape) == len(lead) + 3 and shape[: len(lead)] == lead for shape in shapes[:-1])
        self._demand(bool(layers) and valid and shapes[-1] == (*lead, classes), f"returns shapes {shapes}", wanted)
        return list(layers)

    def rehearse(self, memory_format: str, precision: str, fisher: bool = False) -> None:
        """Make training steps of a copy, so that what fails in one, or with `fisher`, fails before any training."""
        layout = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
        with torch.random.fork_rng(devices=[]):
            with self.blamed(f"fails in training with memory_format={memory_format}, precision={precision}"):
                trained = copy.deepcopy(self).train().to(memory_format=layout)
                for count in (self.timesteps + 1, self.timesteps + 2):  # what it keeps must fit the next batch
                    x = self.images(count)
                    with autocast:
                        layers, logits = trained.features_and_step_logits(
                            x.to(memory_format=layout) if x.dim() == 4 else x
                        )
                    loss = F.cross_entropy(exact(logits.mean(0)), torch.zeros(count, dtype=torch.int64))
                    loss = loss + sum(exact(layer).square().mean() for layer in layers)
                    if loss.requires_grad:
                        loss.backward()
            with self.blamed("fails with fisher_samples, which maps it over images"):
                if fisher:
                    fisher_trace(trained, self.images(2), torch.zeros(2, dtype=torch.int64))

    @property
    def classifier(self) -> nn.Module:
        """The attribute of this name, or else the last linear layer."""
        if (own := getattr(self.network, "classifier", None)) is not None:
            return own
        linear = [module for module in self.network.modules() if isinstance(module, nn.Linear)]
        self._demand(bool(linear), "has no classifier", "one with a linear layer, for this method")
        return linear[-1]

    def features_and_step_logits(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Candidate layers, and :meth:`step_logits`, of one forward pass."""
        if self.spiking:
            return self.network(x)
        if x.dim() == 4 or self._frames == "mean_frame":
            layers, logits = self.network(x if x.dim() == 4 else x.mean(0))
            return layers, logits.unsqueeze(0)
        layers, logits = self.network(x.flatten(0, 1))
        return [layer.unflatten(0, x.shape[:2]) for layer in layers], logits.unflatten(0, x.shape[:2]).mean(0)[None]

    def last_map(self, x: Tensor) -> Tensor:
        """The last candidate layer as the classifier's average over pixels sees it."""
        own: Any = getattr(self.network, "last_map", None)
        return x if own is None else own(x)

    def feature_shapes(self) -> list[tuple[int, int, int]]:
        """(C, H, W) of every candidate layer."""
        return self._shapes


def _tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, x) for name, x in network.state_dict().items() if isinstance(x, Tensor)]
