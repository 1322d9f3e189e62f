"""The neuron of lif.cpp, a yardstick for compiled code: the same arithmetic by hand, for the CPU alone."""

import ctypes
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

FLAGS = ("-O3", "-march=native", "-fno-trapping-math", "-fno-math-errno", "-fopenmp", "-shared", "-fPIC", "-std=c++17")


def build() -> Callable[[Tensor], Tensor] | None:
    """Compile and load; None where there is no C++ compiler.

    The function takes dense currents ``(T, B, ...)`` in float32 or bfloat16, the paper's λ, V_th and γ.
    """
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "lif.so")
        command = [os.environ.get("CXX", "g++"), *FLAGS, str(Path(__file__).with_name("lif.cpp")), "-o", str(library)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        kernels = ctypes.CDLL(str(library))
    decay, threshold, gamma = map(ctypes.c_float, (0.5, 1.0, 0.3))

    def call(name: str, *tensors: Tensor, options: tuple) -> None:
        kernel = getattr(kernels, f"{name}_{'fp32' if tensors[0].dtype == torch.float32 else 'bf16'}")
        steps, size = len(tensors[0]), tensors[0][0].numel()
        kernel(*(ctypes.c_void_p(t.data_ptr()) for t in tensors), ctypes.c_long(steps), ctypes.c_long(size), *options)

    class Handwritten(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            spikes = torch.empty_like(x)
            call("forward", x, spikes, options=(decay, threshold))
            return spikes

        @staticmethod
        def backward(ctx, grad: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            if grad.stride() != x.stride():
                grad = torch.empty_like(x).copy_(grad)
            found = torch.empty_like(x)
            call("backward", x, grad, found, options=(decay, threshold, gamma))
            return found

    return Handwritten.apply
