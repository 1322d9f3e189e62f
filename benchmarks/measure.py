"""Interleaved timing, kept memory, and what the machine can do at most."""

import ctypes
import gc
import platform
import statistics
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from sastc.records import restart_peak_memory

Run = Callable[[], Any]


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleave(runs: Mapping[str, Run], repeats: int, device: torch.device, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of every run, repeated in turn, so that a slow moment of the machine meets all of them alike.

    Every second round goes backwards, so that no run always follows the same one.
    """
    release()
    for run in runs.values():
        for _ in range(warmup):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for k in range(repeats):
            for name in names if k % 2 == 0 else reversed(names):
                synchronise(device)
                start = time.perf_counter()
                runs[name]()
                synchronise(device)
                seconds[name].append(time.perf_counter() - start)
            gc.collect()
    finally:
        if collecting:
            gc.enable()
    return seconds


def summary(seconds: list[float], reference: list[float] | None = None) -> dict[str, Any]:
    """Median and minimum, and how often faster than the reference: median, lowest and highest of the rounds."""
    row: dict[str, Any] = {"seconds": seconds, "median": statistics.median(seconds), "minimum": min(seconds)}
    if reference is not None:
        ratios = [r / s for r, s in zip(reference, seconds, strict=True)]
        row |= {"ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}
    return row


def kept_bytes(run: Run, parameters: list[Tensor] | None = None) -> int:
    """Bytes of all different storages that autograd keeps for the backward pass of `run`; parameters not counted.

    What belongs to no result of `run`, such as a neuron's reset after the last step, is freed before and not counted.
    """
    known = {p.untyped_storage().data_ptr() for p in parameters or []}
    kept: weakref.WeakSet[_Saved] = weakref.WeakSet()

    def pack(tensor: Tensor) -> _Saved:
        saved = _Saved(tensor.detach())  # an operation that keeps its own result would otherwise keep itself alive
        kept.add(saved)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        result = run()
    storages = [saved.tensor.untyped_storage() for saved in kept]
    total = sum({s.data_ptr(): s.nbytes() for s in storages if s.data_ptr() not in known}.values())
    del result
    return total


class _Saved:
    """A tensor for as long as autograd keeps it."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor


def release() -> None:
    """Free what earlier cases left: objects in cycles, and memory that the allocator was told to keep."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_bytes(run: Run, device: torch.device) -> int | None:
    """Highest memory allocated on the device while `run` runs.

    Above what was allocated before. On the CPU by the profiler's record of the allocator of tensors; work space of the
    libraries for convolutions and matrix products is not in it.
    """
    gc.collect()  # else what an earlier run left could be freed during this one, and lower its peak
    if device.type != "cuda":
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            run()
        return _peak(record.profiler.kineto_results.experimental_event_tree())
    before = restart_peak_memory(device)
    run()
    synchronise(device)
    return torch.cuda.max_memory_allocated(device) - before


def _peak(tree: list[Any]) -> int:
    """Most bytes alive at a time of those that were allocated in the recorded events."""
    events, left = [], [*tree]
    while left:
        event = left.pop()
        left += event.children
        if event.name == "[memory]":
            events.append(event)
    alive: dict[int, int] = {}
    peak = total = 0
    for event in sorted(events, key=lambda event: event.start_time_ns):
        pointer, nbytes = event.extra_fields.ptr, event.extra_fields.alloc_size
        if nbytes > 0:
            alive[pointer] = nbytes
            total += nbytes
        else:  # also of what an earlier record saw allocated, which is not this run's
            total -= alive.pop(pointer, 0)
        peak = max(peak, total)
    return peak


def count_flops(run: Run) -> int:
    """Floating-point operations of the matrix products and convolutions of `run`, backward included."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def convolution_share(run: Run) -> float:
    """Share of the CPU time of `run` in convolutions and matrix products, which are torch's in every implementation."""
    with profile(activities=[ProfilerActivity.CPU]) as record:
        run()
    times = {e.key: e.self_cpu_time_total for e in record.key_averages()}
    words = ("conv", "addmm", "aten::mm", "bmm")
    return sum(t for name, t in times.items() if any(w in name for w in words)) / sum(times.values())


def matmul_peak(device: torch.device, dtype: torch.dtype, size: int, repeats: int = 5) -> float:
    """FLOP/s of a square matrix product: the best this process can do."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = interleave({"matmul": lambda: a @ b}, repeats, device)["matmul"]
    return 2 * size**3 / min(seconds)


def copy_bandwidth(device: torch.device, nbytes: int, repeats: int = 7) -> float:
    """Bytes read and written per second by a copy of so many bytes."""
    source = torch.randn(max(nbytes // 4, 1), device=device)
    target = torch.empty_like(source)
    seconds = interleave({"copy": lambda: target.copy_(source)}, repeats, device)["copy"]
    return 2 * source.numel() * 4 / min(seconds)


def close(found: Tensor, expected: Tensor, tolerance: float) -> float:
    """Relative error ``|found - expected| / |expected|`` (Euclidean).

    Raises
    ------
    AssertionError
        If it is larger than `tolerance`.
    """
    found, expected = found.detach().double(), expected.detach().double()
    error = ((found - expected).norm() / expected.norm().clamp_min(1e-30)).item()
    if not error <= tolerance:
        raise AssertionError(f"values differ: relative error {error:.3g}, allowed {tolerance:.3g}")
    return error
