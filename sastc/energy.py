"""Operations and energy of one inference (Appendix 1, Table 3): synaptic operations counted spike by spike."""

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sastc.checks import check, check_integer, check_one_of, is_count
from sastc.fisher import batch_dim, evaluation_mode
from sastc.neurons import LIF

# Appendix 1 after Rathi & Roy (2021): 45 nm CMOS, and special hardware, for which the paper gives no MAC.
ENERGY_PER_MAC_PJ = 4.6
ENERGY_PER_AC_PJ = 0.9
SPECIAL_ENERGY_PER_AC_PJ = 0.077

ENCODINGS = ("per_step", "once", "events")
FORMULAS = ("connections", "rate")
COLUMNS = ("layer", "kind", "input", "macs", "acs", "input_rate", "dense_macs", "energy_nj", "special_energy_nj")
AVERAGE_POOLS = frozenset(("avg_pool2d", "adaptive_avg_pool2d"))
# Functions that only move, copy or select values; "__get__" is x.T or x.mT, a dropout is idle in evaluation mode.
SAME_VALUES = frozenset((
    "flatten", "unflatten", "reshape", "view", "view_as", "squeeze", "unsqueeze", "expand", "expand_as",
    "permute", "transpose", "t", "movedim", "swapaxes", "__get__",
    "contiguous", "clone", "detach", "requires_grad_", "to", "type_as", "float", "double", "half", "bfloat16",
    "cpu", "cuda", "repeat", "tile", "repeat_interleave", "dropout", "dropout2d", "dropout3d",
    "__getitem__", "select", "narrow", "unbind", "chunk", "split", "tensor_split", "cat", "concat", "concatenate",
    "stack", "max_pool2d", "adaptive_max_pool2d",
))  # fmt: skip


@dataclass(frozen=True)
class Energy:
    """What :func:`count_energy` found; counts are means over samples and sums over the time steps."""

    layers: pd.DataFrame
    """A row for each layer with weights, in the order of computation: `layer` (its name), `kind` (conv, linear),
    `input` (image, events, analog, spikes, pooled), `macs`, `acs`, `input_rate` (share of its inputs that are not
    zero; for spikes their rate per neuron and step), `dense_macs` (the usual count k² C_in C_out H_out W_out, border
    included, times the passes), `energy_nj` (45 nm) and `special_energy_nj`."""
    samples: int
    timesteps: int
    """Steps T of each sample."""

    @property
    def macs(self) -> float:
        """Multiply-accumulate operations of one sample."""
        return float(self.layers["macs"].sum())

    @property
    def acs(self) -> float:
        """Accumulate operations, that is synaptic operations, of one sample."""
        return float(self.layers["acs"].sum())

    @property
    def energy_uj(self) -> float:
        """Microjoules for one sample: 4.6 pJ a MAC, 0.9 pJ an AC."""
        return float(self.layers["energy_nj"].sum()) / 1e3

    @property
    def special_energy_uj(self) -> float:
        """Microjoules for one sample on special hardware: 4.6 pJ a MAC, 77 fJ an AC."""
        return float(self.layers["special_energy_nj"].sum()) / 1e3


def count_energy(
    model: nn.Module,
    x: Tensor | Iterable[Tensor | tuple],
    *,
    encoding: str = "per_step",
    formula: str = "connections",
    neurons: type | tuple[type, ...] = LIF,
    timesteps: int | None = None,
    chunk: int = 128,
) -> Energy:
    """Count the operations of every convolution and linear layer, and their energy.

    A layer's input decides. Spikes cost one AC for every connection that the spiking neuron truly has; anything else
    costs one MAC for every connection, zeros included. Spikes stay spikes through ``SAME_VALUES``, which only move or
    copy them, and through max-pools. Behind an average pool or a mean over the last two dimensions ("pooled") every
    input that is not zero counts as one spike. Whatever else is computed from spikes, such as the output of a layer or
    of a batch norm and a residual sum, is analog until the next neuron: so are the inputs of a second linear layer in a
    row (VGG-11's head) and those of PyramidNet's first convolution in each block. Networks compute their output at
    every step here, as hardware would. Biases, batch norms (folded into the weights), pools, residual additions and the
    neurons themselves are not counted.

    Parameters
    ----------
    model : nn.Module
        ANN or SNN with weights in Conv2d and Linear alone, that is called on `x`; its state is left as it is. Where it
        has them, ``step_logits(x)`` is called instead, `timesteps` is T, and `spiking` says that it must have neurons.
    x : Tensor or iterable
        Images (B, C, H, W), vectors (B, F) or sequences (T, B, C, H, W), or batches of them, alone or first in a tuple.
    encoding : {"per_step", "once", "events"}
        How the first layers of an SNN, those that see the input itself, are counted: MACs at each of the T steps; MACs
        once for a static image, whose current is then kept; or ACs for each input that is not zero. It makes no
        difference how often the model itself computes a static image's current.
    formula : {"connections", "rate"}
        Count each spike's true connections, those to the zero border left out in ACs and MACs alike; or multiply the
        rate of the inputs by the dense operations, border included, as is often done. The paper only says that it
        counts spiking operations; its ANN's 12511.2 µJ are 2.72 G MACs, more than a ResNet-32x4 has by either formula.
    neurons : type or tuple of type
        Classes of the modules that spike; where they return a tuple, its first element. A network without such modules
        is an ANN.
    timesteps : int, optional
        Steps T that an SNN shows a static input; by default the attribute ``timesteps`` of the model, or of a network
        inside it (behind a normalisation, in DataParallel, compiled), or 1 where there is no such attribute.
    chunk : int
        Samples that run at a time if `x` is one tensor.

    Raises
    ------
    ValueError
        A value that is not allowed, networks of different T in one model, a layer that cannot be counted, none at all,
        no sample, or none of the `neurons` in a model that is `spiking` or for which `timesteps` are given.
    """
    check_one_of("encoding", encoding, ENCODINGS)
    check_one_of("formula", formula, FORMULAS)
    chunk = check_integer("chunk", chunk, 1)
    timesteps = None if timesteps is None else check_integer("timesteps", timesteps, 1)
    model = getattr(model, "_orig_mod", model)  # of a compiled one, which hooks do not see
    counter = _Counter(model, neurons, encoding, timesteps)
    run = getattr(model, "step_logits", model)  # the classifier runs at each step, not on the mean
    with counter.hooks, evaluation_mode(model), torch.no_grad(), _every_step(model, counter.encoding):
        for batch in x.split(chunk, batch_dim(x)) if isinstance(x, Tensor) else x:
            counter.count(run, batch[0] if isinstance(batch, (tuple, list)) else batch)
    check("x", counter.samples, counter.samples > 0, "at least one sample")
    check("model", type(model).__name__, bool(counter.sums), "a network that calls its Conv2d and Linear layers")
    return Energy(counter.table(formula), counter.samples, counter.timesteps)


@contextlib.contextmanager
def _every_step(model: nn.Module, encoding: str) -> Iterator[None]:
    """Let networks inside `model` compute their output at every step, from what they are given as the input."""
    inside = [module for module in model.modules() if module is not model and hasattr(module, "step_logits")]
    kind = "events" if encoding == "events" else "image"
    for network in inside:
        network.forward = lambda x, network=network: network.step_logits(_of_kind(x, kind)).mean(0)
    try:
        yield
    finally:
        for network in inside:
            del network.forward


def _steps_of(model: nn.Module) -> int:
    """T of a model, or of the networks inside it; 1 where none has `timesteps`."""
    own = getattr(model, "timesteps", None)
    found = {own} if own else {t for m in model.modules() if is_count(t := getattr(m, "timesteps", None))}
    check("timesteps", sorted(found), len(found) < 2, "given, as the networks in this model differ")
    return found.pop() if found else 1


class _Kind(Tensor):
    """A tensor whose `kind` says what its values are (image, events, spikes, pooled), until they change."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            out = func(*args, **kwargs or {})
        return _of_kind(out, _kind_after(getattr(func, "__name__", ""), *args, **kwargs or {}))


def _kind_after(name: str, x: Any = None, *args: Any, **kwargs: Any) -> str | None:
    """Kind of what a function makes of a tensor, or of a list of tensors; None where it changes the values."""
    x = kwargs.get("tensors", kwargs.get("input", x))
    kinds = {getattr(each, "kind", None) for each in (x if isinstance(x, (tuple, list)) else (x,))}
    pooled = name in AVERAGE_POOLS or (name == "mean" and _over_pixels(x, *args, **kwargs))
    if not (pooled or name in SAME_VALUES):
        return None
    if kinds in ({"spikes", "pooled"}, {"spikes"} if pooled else None):
        return "pooled"
    return kinds.pop() if len(kinds) == 1 else None


def _over_pixels(x: Tensor, dim: Any = None, *args: Any, **kwargs: Any) -> bool:
    return isinstance(dim, (tuple, list)) and {d % x.dim() for d in dim} == {x.dim() - 2, x.dim() - 1}


def _of_kind(x: Any, kind: str | None) -> Any:
    if type(x) in (tuple, list) and kind is not None:
        return type(x)(_of_kind(each, kind) for each in x)
    if isinstance(x, Tensor) and not isinstance(x, _Kind) and kind is not None:
        x = x.as_subclass(_Kind)
    if isinstance(x, _Kind):
        x.kind = kind  # None after a change in place
    return x


def _fired(neuron: nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple:
    """The output of a neuron, marked as spikes; of a tuple its first element."""
    return (_of_kind(output[0], "spikes"), *output[1:]) if isinstance(output, tuple) else _of_kind(output, "spikes")


class _Counter:
    """Hooks that add up what a model's layers do."""

    def __init__(self, model: nn.Module, neurons: type | tuple[type, ...], encoding: str, timesteps: int | None = None):
        modules: dict[str, nn.Module] = dict(model.named_modules())
        spiking: list[nn.Module] = [module for module in modules.values() if isinstance(module, neurons)]
        layers = {name: module for name, module in modules.items() if isinstance(module, (nn.Conv2d, nn.Linear))}
        if (getattr(model, "spiking", False) or timesteps is not None) and not spiking:
            raise ValueError(f"neurons={neurons!r}: must be the class of the model's neurons; it has none of these")
        for name, module in modules.items():
            border = isinstance(module, nn.Conv2d) and (module.padding_mode != "zeros" or module.padding == "same")
            own = [key for key, p in module.named_parameters(recurse=False) if p.dim() > 1]
            if border or (own and name not in layers):
                weights = f" (it has {', '.join(own)})" if own else ""
                raise ValueError(
                    f"{name or 'model'}={module}{weights}: must be Conv2d, with a border of zeros given in pixels, "
                    "or Linear"
                )
        self.encoding = encoding if spiking else "once"
        self.static_steps = (timesteps or _steps_of(model)) if spiking else 1
        self.samples = self.timesteps = 0
        self.sums: dict[tuple[str, str, str], Counter[str]] = {}
        self.seen: dict[tuple[str, str, str], Counter[str]] = {}  # in one batch
        self.hooks = contextlib.ExitStack()
        for module in spiking:
            self.hooks.enter_context(module.register_forward_hook(_fired))
        for name, module in layers.items():
            hook = partial(self._add, name)
            self.hooks.enter_context(module.register_forward_pre_hook(hook, with_kwargs=True))

    def count(self, run: Callable[[Tensor], Tensor], x: Tensor) -> None:
        """Add one batch."""
        dim = batch_dim(x)
        batch = x.shape[dim]
        self.samples += batch
        self.timesteps = len(x) if dim else self.static_steps
        self.seen = {}
        run(_of_kind(x, "events" if self.encoding == "events" else "image"))
        for key, seen in self.seen.items():
            passes = seen["passes"]
            if dim == 0 and key[-1] in ("image", "events") and passes in (batch, batch * self.timesteps):
                # a static input counts once or at each of the T steps, however often the model passes it
                wanted = batch if self.encoding == "once" else batch * self.timesteps
                seen = Counter({name: value * wanted // passes for name, value in seen.items()})
            self.sums.setdefault(key, Counter()).update(seen)

    def _add(self, name: str, layer: nn.Conv2d | nn.Linear, args: tuple, kwargs: dict) -> None:
        given = args[0] if args else kwargs["input"]
        kind, x = getattr(given, "kind", None) or "analog", given.as_subclass(Tensor)
        if isinstance(layer, nn.Linear):
            x = x[..., None, None]  # a convolution of one pixel
        fan_out, positions = _fan_out(layer, x)
        passes = math.prod(x.shape[:-3])
        active = (x != 0).flatten(0, -3).sum(0)  # (H, W)
        found = dict(
            passes=passes,
            connections=passes * x.shape[-3] * int(fan_out.sum()),
            synaptic=int((active * fan_out).sum()),
            dense=passes * positions * layer.weight.numel(),
            active=int(active.sum()),
            inputs=x.numel(),
        )
        key = name, "conv" if isinstance(layer, nn.Conv2d) else "linear", kind
        self.seen.setdefault(key, Counter()).update(found)

    def table(self, formula: str) -> pd.DataFrame:
        """Means over samples."""
        names = pd.DataFrame(self.sums.keys(), columns=["layer", "kind", "input"])
        sums = pd.DataFrame(self.sums.values())
        rate, spikes = sums.active / sums.inputs, names.input.isin(("events", "spikes", "pooled"))
        macs, acs = (sums.connections, sums.synaptic) if formula == "connections" else (sums.dense, rate * sums.dense)
        macs, acs = macs.where(~spikes, 0) / self.samples, acs.where(spikes, 0) / self.samples
        return names.assign(
            macs=macs,
            acs=acs,
            input_rate=rate,
            dense_macs=sums.dense / self.samples,
            energy_nj=(ENERGY_PER_MAC_PJ * macs + ENERGY_PER_AC_PJ * acs) / 1e3,
            special_energy_nj=(ENERGY_PER_MAC_PJ * macs + SPECIAL_ENERGY_PER_AC_PJ * acs) / 1e3,
        )


def _fan_out(layer: nn.Conv2d | nn.Linear, x: Tensor) -> tuple[Tensor, int]:
    """Connections that an input of (..., C, H, W) has, by its pixel (H, W), and the number of output pixels."""
    if isinstance(layer, nn.Linear):
        return torch.full((1, 1), layer.out_features, device=x.device), 1
    padding = 0 if layer.padding == "valid" else layer.padding
    window = dict(kernel_size=layer.kernel_size, dilation=layer.dilation, padding=padding, stride=layer.stride)
    windows = F.unfold(torch.ones(1, 1, *x.shape[-2:], device=x.device), **window)
    covered = F.fold(windows, x.shape[-2:], **window)[0, 0].long()  # number of windows that a pixel takes part in
    return covered * (layer.out_channels // layer.groups), windows.shape[-1]
