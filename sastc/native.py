"""The neuron's kernels in C++ (lif.cpp) for the CPU, built by the machine's own compiler when they are first needed.

They give the bits of torch's operations in a fraction of the time; a call costs little, which matters in small layers.
Without a compiler, or where it fails, neurons use torch (:mod:`sastc.fused`).
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sastc.files import user_cache

SOURCE = Path(__file__).with_name("lif.cpp")
# Neither contraction nor -ffast-math: each operation rounds once. Without traps comparisons are vectorised.
FLAGS = "-O3 -march=native -ffp-contract=off -fno-trapping-math -fno-math-errno -fopenmp -shared -fPIC -std=c++17"
SURROGATES = {"triangle": 0, "rectangle": 1, "atan": 2}  # the last bit of a sigmoid is torch's own
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class _Options(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_float) for name in ("decay", "threshold", "gamma", "divisor")),
        *((name, ctypes.c_int) for name in ("surrogate", "soft", "detach")),
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """The built kernels; ``None`` where they cannot be built or loaded.

    Building takes seconds, once on a machine; the file of 50 kB is kept in :func:`sastc.files.user_cache`.
    """
    try:
        compiler = shlex.split(os.environ.get("CXX", "g++"))  # such as "ccache g++"
        built = user_cache() / f"lif-{_key(compiler)}.so"
        if not built.exists():
            built.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=built.parent) as place:  # whole or not at all
                made = Path(place, "lif.so")
                command = [*compiler, *FLAGS.split(), str(SOURCE), "-o", str(made)]
                subprocess.run(command, check=True, capture_output=True)
                os.replace(made, built)
        return ctypes.CDLL(str(built))
    except (OSError, RuntimeError, subprocess.CalledProcessError):  # RuntimeError: no home folder
        return None


def _key(compiler: list[str]) -> str:
    """What the built file depends on: source, flags, compiler and the processor's instructions."""
    version = subprocess.run([*compiler, "--version"], check=True, capture_output=True).stdout
    content = SOURCE.read_bytes() + FLAGS.encode() + version + (platform.machine() + _processor()).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def has_bf16() -> bool:
    """Whether this processor computes in bfloat16; on an x86 without, bf16 is several times slower than fp32."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return True  # not known to be slow
    flags = _processor()
    return "amx_bf16" in flags or "avx512_bf16" in flags or not flags


def _processor() -> str:
    """The processor's instructions, as Linux names them."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))  # of an x86, of an ARM
    return ""


def can(x: Tensor, surrogate: str = "triangle") -> bool:
    """Whether the kernels can compute on a tensor: a plain one on the CPU, of a type and surrogate that they know.

    They cannot while torch traces a graph or counts operations, since torch does not see what they do.
    """
    plain = x.device.type == "cpu" and x.dtype in DTYPES and type(x) in (Tensor, nn.Parameter)
    watched = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0
    return plain and not watched and surrogate in SURROGATES and library() is not None


@functools.cache
def _options(
    decay: float, threshold: float, gamma: float, surrogate: str, reset: str, detach: bool
) -> ctypes.Structure:
    divisor = gamma**2 if surrogate == "triangle" else gamma / 2
    return _Options(decay, threshold, gamma, divisor, SURROGATES[surrogate], reset == "soft", detach)


@functools.cache
def _function(name: str, dtype: torch.dtype) -> Callable[..., None]:
    function = getattr(library(), f"{name}_{DTYPES[dtype]}")
    pointers = 3 if name == "spikes" else 5
    function.argtypes = [ctypes.c_void_p] * pointers + [ctypes.c_long] * 2 + [ctypes.c_void_p, ctypes.c_int]
    function.restype = None
    return function


def _run(name: str, options: ctypes.Structure, rows: Tensor, *tensors: Tensor | None) -> None:
    """Run a kernel on currents (T, N) and on the other tensors that it reads and writes, all contiguous."""
    pointers = (None if x is None else x.data_ptr() for x in (rows, *tensors))
    call = _function(name, rows.dtype)
    call(*pointers, *rows.shape, ctypes.addressof(options), torch.get_num_threads())


def spikes(rows: Tensor, u0: Tensor | None, decay: float, threshold: float, reset: str) -> Tensor:
    """Spikes (T, N) of currents (T, N) in float32 or bfloat16 and of initial potentials (N,)."""
    rows, start = rows.contiguous(), None if u0 is None else u0.float().contiguous()
    out = torch.empty_like(rows)
    _run("spikes", _options(decay, threshold, 1.0, "triangle", reset, False), rows, start, out)
    return out


def gradients(grad: Tensor, rows: Tensor, u0: Tensor | None, *options: Any) -> tuple[Tensor, Tensor | None]:
    """Gradients of the currents (T, N), and of the initial potentials (N,), float32, where they are given.

    The options are decay, threshold, gamma, surrogate, reset and detach_reset.
    """
    rows, grad, start = rows.contiguous(), grad.contiguous(), None if u0 is None else u0.float().contiguous()
    found, first = torch.empty_like(rows), None if start is None else torch.empty_like(start)
    _run("gradients", _options(*options), rows, start, grad, found, first)
    return found, first
