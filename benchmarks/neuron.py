"""Cases `lif` and `call`: forward and backward of one layer of neurons over all time steps, large and tiny."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor

from benchmarks import handwritten, measure, peers
from benchmarks.plain import PlainLIF
from benchmarks.settings import DTYPES, Settings
from sastc.neurons import LIF

Neuron = Callable[[Tensor], Tensor]


def cases(settings: Settings) -> Iterator[dict[str, Any]]:
    """One row for every implementation, number of time steps, layout and precision."""
    grid = product(settings.lif_timesteps, ("contiguous", "channels_last"), DTYPES)
    for timesteps, layout, precision in grid:
        for row in _case(settings, (timesteps, *settings.lif_shape), layout, precision):
            if "median" in row:  # read x; write o; read x, do; write dx
                bandwidth = measure.copy_bandwidth(settings.device, row["input_bytes"])
                row["floor_seconds"] = 5 * row["input_bytes"] / bandwidth
            yield {"case": "lif"} | row


def call_cases(settings: Settings) -> Iterator[dict[str, Any]]:
    """One row for every implementation: 256 neurons, so that a call's own cost is all there is to see.

    A time is that of many calls, divided: one alone takes less than the clock's and the caches' moods.
    """
    for row in _case(settings, (2, 2, 8, 4, 4), "contiguous", "fp32", calls=100 * settings.lif_repeats):
        yield {"case": "call"} | row


def _case(
    settings: Settings, shape: tuple[int, ...], layout: str, precision: str, calls: int = 1
) -> Iterator[dict[str, Any]]:
    device, dtype, timesteps = settings.device, DTYPES[precision], shape[0]
    torch._dynamo.reset()  # torch compiles one function eight times at most, and the compiled plain loop is one for all
    x, grad = (_draw(shape, layout, dtype, device, seed) for seed in (0, 1))
    library = LIF()
    found = {"plain": (PlainLIF(), ""), "library": (library, "")} | _others(settings, shape, precision)
    small = [_draw((timesteps, 4, *shape[2:]), layout, dtype, device, seed) for seed in (2, 3)]
    runs, notes, errors = {}, {}, {}
    for name, (neuron, note) in found.items():
        notes[name] = note
        if neuron is None:
            continue
        if name != "library":
            # snnTorch's reset takes no part in the gradient: compared with the library's that does not either
            try:
                errors[name] = check(neuron, LIF(detach_reset=name == "snntorch"), *small)
            except AssertionError as error:
                notes[name] = f"not timed, other work: {error}"
                if name in ("plain", "compiled", "handwritten"):
                    raise
                continue
        runs[name] = _forward_backward(neuron, x, grad, calls)
    seconds = measure.interleave(runs, settings.lif_repeats, device)
    seconds = {name: [second / calls for second in found] for name, found in seconds.items()}
    nbytes = x.numel() * x.element_size()
    for name in found:
        row: dict[str, Any] = {"implementation": name, "note": notes[name]}
        row |= {"timesteps": timesteps, "layout": layout, "precision": precision, "shape": list(shape)}
        if name in seconds:
            leaf = x.detach().requires_grad_()
            row |= measure.summary(seconds[name], seconds["plain"])
            kept = measure.kept_bytes(lambda n=name, leaf=leaf: found[n][0](leaf))
            row |= {"kept_bytes": kept, "input_bytes": nbytes, "peak_bytes": measure.peak_bytes(runs[name], device)}
            row["error"] = errors.get(name)
        yield row


def _others(settings: Settings, shape: tuple[int, ...], precision: str) -> dict[str, tuple[Neuron | None, str]]:
    """The plain loop compiled, the same by hand, neurons of other packages; None and a note where one cannot run."""
    found: dict[str, tuple[Neuron | None, str]] = {}
    if shape[0] in settings.compiled_timesteps and shape[1:] == settings.lif_shape:  # few, for its recompile limit
        found["compiled"] = torch.compile(PlainLIF(), dynamic=False), ""
    if settings.device.type == "cpu":
        neuron = handwritten.build()
        found["handwritten"] = neuron, "" if neuron else "no C++ compiler"
    missing = (None, "not installed")
    found["spikingjelly"] = found["snntorch"] = missing
    if settings.peers["spikingjelly"]:
        neuron, backend = peers.spikingjelly()
        found["spikingjelly"] = neuron, f"implementation {backend}" if settings.device.type == "cuda" else ""
    if settings.peers["snntorch"]:
        found["snntorch"] = peers.snntorch(settings.device), "no gradient through the reset"
        if precision == "bf16":
            found["snntorch"] = None, "not timed, other work: its potential is bf16"
    return found


def _draw(shape: tuple[int, ...], layout: str, dtype: torch.dtype, device: torch.device, seed: int) -> Tensor:
    """Standard normal currents (T, B, C, H, W), the last three dimensions with channels first or last in memory."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(device)
    if layout == "contiguous":
        return values
    return values.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, shape[:2])


def _forward_backward(neuron: Neuron, x: Tensor, grad: Tensor, calls: int) -> Callable[[], Tensor]:
    def run() -> Tensor:
        for _ in range(calls):
            leaf = x.detach().requires_grad_()
            neuron(leaf).backward(grad)
        return leaf.grad

    return run


def check(neuron: Neuron, library: LIF, x: Tensor, grad: Tensor) -> float:
    """Compare spikes (equal) and gradients (relative error, returned) with the library's.

    Elements whose potential once meets the threshold exactly are left out: SpikingJelly fires there, the paper does
    not say.
    """
    clear = ~(library.membrane(x) == library.threshold).any(0)
    leaves = [x.detach().requires_grad_() for _ in range(2)]
    outputs = [function(leaf) for function, leaf in zip((library, neuron), leaves, strict=True)]
    different = (outputs[0] != outputs[1])[:, clear].sum().item()
    if different:
        raise AssertionError(f"{different} of {outputs[0].numel()} spikes differ")
    for output in outputs:
        output.backward(grad)
    return measure.close(leaves[1].grad[:, clear], leaves[0].grad[:, clear], 1e-5 if x.dtype == torch.float32 else 1e-2)
