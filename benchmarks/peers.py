"""Neurons of other packages, set up to do the same work as :class:`sastc.neurons.LIF`; used only if installed."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor

from benchmarks.plain import Spike

NAMES = ("spikingjelly", "snntorch")
GAMMA = 0.3


def installed() -> dict[str, str | None]:
    """Version of every peer; None where it cannot be imported."""
    return {name: _version(name) for name in NAMES}


def _version(name: str) -> str | None:
    if importlib.util.find_spec(name) is None:
        return None
    module = "spikingjelly.activation_based.neuron" if name == "spikingjelly" else name
    done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True)  # a broken one stays outside
    if done.returncode:
        return None
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def spikingjelly() -> tuple[Callable[[Tensor], Tensor], str]:
    """SpikingJelly's multi-step LIF node and the implementation it takes on a GPU (it has one on the CPU)."""
    from spikingjelly.activation_based import functional, neuron, surrogate

    node = neuron.LIFNode(
        tau=2.0,
        decay_input=False,
        v_threshold=1.0,
        v_reset=0.0,
        surrogate_function=surrogate.PiecewiseQuadratic(alpha=1 / GAMMA),  # its derivative is Eq. 11
        detach_reset=False,
        step_mode="m",
    )

    def run(x: Tensor) -> Tensor:
        functional.reset_net(node)
        return node(x)

    return run, os.environ.get("SJ_LIF_CUDA_IMPLEMENTATION", "auto")


def snntorch(device: torch.device) -> Callable[[Tensor], Tensor]:
    """Leaky of snnTorch in a loop over time. Its reset takes no part in the gradient, and cannot be made to."""
    import snntorch

    node = snntorch.Leaky(
        beta=0.5, threshold=1.0, spike_grad=lambda d: Spike.apply(d, GAMMA), reset_mechanism="zero"
    ).to(device)

    def run(x: Tensor) -> Tensor:
        potential, spikes = torch.zeros_like(x[0]), []
        for current in x:
            spike, potential = node(current, potential)
            spikes.append(spike)
        return torch.stack(spikes)

    return run
