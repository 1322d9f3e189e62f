"""Several processes that train one run together, started by torchrun.

Process r of W sees the images r, r + W, ... of every batch. Whatever mixes instances (batch norm, similarity matrices)
is computed over all of them, with gradients, so that a step of W processes is the step of one, up to rounding. Without
torchrun there is one process, and nothing here communicates.
"""

import atexit
import contextlib
import datetime
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sastc.records import RunError

T = TypeVar("T")
PATIENCE = datetime.timedelta(minutes=30)  # how long processes wait for each other; the first one measures alone


def size() -> int:
    """Number of processes W."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Place r of this process among them; process 0 is the one that writes."""
    return dist.get_rank() if size() > 1 else 0


def chosen_device(device: str | torch.device) -> torch.device:
    """The device of this name; "auto" takes a GPU where there is one. A RunError says what this machine has."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return torch.device("cuda" if count else "cpu")
    with contextlib.suppress(RuntimeError):  # a text that torch cannot read
        found = torch.device(device)
        if found.type == "cpu" or (found.type == "cuda" and (found.index or 0) < count):
            return found
    raise RunError(f"device={str(device)!r}: must be auto, cpu, cuda or cuda:N; this machine has {count} GPUs")


@contextlib.contextmanager
def processes(device: str | torch.device) -> Iterator[torch.device]:
    """Join the processes that torchrun has started, if it has; yields the device of this one.

    The device is that of :func:`chosen_device`; of several processes each takes the GPU of its rank on its machine.

    Raises
    ------
    RunError
        A device that this machine does not have or that several processes would share, or fewer GPUs than processes on
        this machine; inside the block also when another process has ended.
    """
    device = chosen_device(device)
    if size() == 1 and "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        device = _join(device)
    try:
        yield device
    except RuntimeError as error:
        if size() > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise RunError(f"another process of this run has ended; it says why ({str(error)[:80]})") from error
        raise


def _join(device: torch.device) -> torch.device:
    """Join until the process ends: torchrun's rendezvous works only once."""
    if device.type == "cuda":
        local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if device.index is not None:
            raise RunError(f"device={device}: must be auto, cuda or cpu when several processes share the work")
        if local >= count:
            raise RunError(f"process {local} has no GPU: this machine has {count}; start at most as many processes")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    atexit.register(dist.destroy_process_group)
    return device


def once(call: Callable[[], T]) -> T:
    """Call in the first process alone; all processes get its result, or raise its error."""
    if size() == 1:
        return call()
    answer: list[Any] = [None, None]
    if rank() == 0:
        try:
            answer[0] = call()
        except Exception as error:
            answer[1] = error
    dist.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


def total(x: Tensor) -> Tensor:
    """Sum of a tensor over all processes, differentiable."""
    return x if size() == 1 else _Sum.apply(x)


def gather(x: Tensor, dim: int, instances: int) -> Tensor:
    """All processes' slices of `x` along `dim`, in the order of the whole batch of so many `instances`.

    `x` holds this process's slices, r, r + W, ... The gradient is the sum of all processes' gradients.
    """
    mine = len(range(rank(), instances, size()))
    if x.shape[dim] != mine:
        raise ValueError(f"{x.shape[dim]} instances in process {rank()}: must be {mine} of {instances}")
    return x if size() == 1 else _Gather.apply(x.movedim(dim, 0), instances).movedim(0, dim)


def mean_std(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (n - 1) of all elements in all processes, without gradient."""
    count = total(torch.full((), float(x.numel()), dtype=torch.float64, device=x.device))
    mean = total(x.sum(dtype=torch.float64)) / count
    variance = total((x - mean).square().sum(dtype=torch.float64)) / (count - 1)
    return mean.to(x.dtype), variance.sqrt().to(x.dtype)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        x = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, grad):
        return _Sum.apply(grad)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, instances):
        mine = x.new_zeros(-(-instances // size()), *x.shape[1:])  # shares differ by one instance at most
        mine[: len(x)] = x
        parts = [torch.empty_like(mine) for _ in range(size())]
        dist.all_gather(parts, mine)
        return torch.stack(parts, 1).flatten(0, 1)[:instances]

    @staticmethod
    def backward(ctx, grad):
        return _Sum.apply(grad)[rank() :: size()], None


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the instances of all processes; for the CPU, where :class:`torch.nn.SyncBatchNorm` does not run.

    Statistics and arithmetic are at least float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        if not self.training or size() == 1:
            return super().forward(x)
        y = x.to(torch.promote_types(x.dtype, torch.float32))
        per_channel = dict(dim=(0, 2, 3), keepdim=True)
        count = total(torch.full((), float(y.numel() // y.shape[1]), dtype=y.dtype, device=y.device))
        mean = total(y.sum(**per_channel)) / count
        y = y - mean
        variance = total(y.square().sum(**per_channel)) / count
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked += 1
                momentum = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.flatten(), momentum)
                self.running_var.lerp_(variance.flatten() * count / (count - 1), momentum)
        y = y * (variance + self.eps).rsqrt()
        if self.affine:
            y = y * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)
        return y.to(x.dtype)


def synchronise(module: nn.Module, device: torch.device) -> None:
    """Compute the training statistics of all batch norms of a module over all processes; nothing else changes."""
    for norm in module.modules():
        if type(norm) is nn.BatchNorm2d:
            norm.__class__ = nn.SyncBatchNorm if device.type == "cuda" else BatchNorm2d
            norm.process_group = None  # a field of SyncBatchNorm: all processes


class Trained(nn.Module):
    """All that a run trains, as one module: the student, and what its method trains beside it, such as projectors."""

    def __init__(self, model: nn.Module, calibration: nn.Module, by_step: bool = False):
        super().__init__()
        self.model, self.calibration, self.by_step = model, calibration, by_step

    def forward(
        self, x: Tensor, targets: list[Tensor] | None, instances: int | None
    ) -> tuple[list[Tensor], Tensor, Tensor | None, Any]:
        """Student features, logits, logits of each step if `by_step`, and the calibration of features and `targets`.

        `instances` is the size of the whole batch where similarity matrices are of all processes.
        """
        steps = calibrated = None
        if self.by_step:
            features, steps = self.model.features_and_step_logits(x)
            logits = steps.mean(0)
        else:
            features, logits = self.model.features(x)
        if targets is not None and not isinstance(self.calibration, nn.Identity):
            calibrated = self.calibration(features, targets, instances)
        return features, logits, steps, calibrated


def parallel(module: nn.Module, device: torch.device, unused: bool) -> nn.Module:
    """The module with gradients averaged over all processes; with `unused`, where some weights get none."""
    if size() == 1:
        return module
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(module, device_ids=ids, find_unused_parameters=unused)


def share_buffers(module: nn.Module) -> None:
    """Give all processes the first one's buffers: running statistics differ where batch norms are not synchronised."""
    if size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


class MicroBatch(NamedTuple):
    """The part of a step's images that goes through the networks at once."""

    x: Tensor  # (b, C, H, W) or (T, b, C, H, W), of this process
    y: Tensor  # (b,)
    instances: int  # of this micro-batch, over all processes
    share: float  # b divided by the instances of the whole step
    last: bool  # whether it is the last of its step


def micro_batches(x: Tensor, y: Tensor, whole: int, micro: int) -> list[MicroBatch]:
    """Split this process's share of a batch of `whole` instances into micro-batches of `micro` over all processes.

    The k-th holds the instances ``k·micro ... (k+1)·micro - 1`` of the batch for any number of processes that divides
    `micro`.
    """
    parts = list(zip(x.split(micro // size(), x.dim() - 4), y.split(micro // size()), strict=True))
    return [
        MicroBatch(*part, min(micro, whole - k * micro), len(part[1]) / whole, k == len(parts) - 1)
        for k, part in enumerate(parts)
    ]


def micro_batch_size(images: int, batch_size: int, accumulate: int, keep_last: bool) -> int:
    """Instances of a micro-batch, over all processes; a RunError if these cannot share all those of so many images."""
    micro = batch_size // accumulate
    rest = images % batch_size % micro
    if micro % size():
        raise RunError(
            f"batch_size={batch_size}, accumulate={accumulate}: batch_size / accumulate = {micro} "
            f"must be a multiple of the {size()} processes"
        )
    if keep_last and 0 < rest < size():
        raise RunError(
            f"partial_batch=keep: the last {rest} of {images} images are fewer than the {size()} processes; "
            "choose another batch_size, or partial_batch=drop"
        )
    return micro
