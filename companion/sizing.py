"""What a run takes, computed without doing it: operations of an epoch, memory of a step.

Networks and batches are stand-ins that have shapes but no numbers, so that ImageNet at full size costs seconds on any
machine. Operations are those of matrix products and convolutions, as torch counts them: a multiplication and an
addition are two. What they take in seconds depends on the device, see :mod:`companion.pages.cost`.
"""

import functools
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from sastc import distributed
from sastc.build import SHAPE, build_model
from sastc.config import EVENT_DATASETS, RunConfig
from sastc.data import Dataset, Split, epoch_batches
from sastc.facts import FACTS
from sastc.methods import Batch
from sastc.train import Step, networks

# Training images, test images, channels, classes
SIZES = {name: (f.train, f.test, f.channels, f.classes) for name, f in FACTS.items() if f.train}
NETWORK = (*SHAPE, "image_size", "student_tap", "output", "teacher_input")  # fields that decide a network


def stand_in(config: RunConfig, images: int) -> Dataset:
    """A dataset of the config's shapes with so many images, which are all zero."""
    _, _, channels, classes = _sizes(config)
    steps = (config.timesteps,) if config.dataset in EVENT_DATASETS else ()
    pixels = torch.zeros(images, *steps, channels, config.image_size, config.image_size, dtype=torch.uint8)
    split = Split(pixels, torch.zeros(images, dtype=torch.int64))
    names = tuple(map(str, range(classes)))
    return Dataset(
        config.dataset, config.dataset, names, split, split, (0.5,) * channels, (0.5,) * channels, 0, False, {}
    )


def _sizes(config: RunConfig) -> tuple[int, int, int, int]:
    if config.dataset not in SIZES:
        raise ValueError(f"dataset={config.dataset!r}: has no size of its own; must be one of {', '.join(SIZES)}")
    return SIZES[config.dataset]


# Operations


def run_flops(config: RunConfig) -> int:
    """Operations of a whole run: training and testing after each epoch; its teacher's training is not counted.

    The few batches on which the mismatch score is measured, and what is measured at the end, are left out.
    """
    train, test, *_ = _sizes(config)
    train = math.floor((config.train_subset or train) * config.train_fraction)
    steps = train // config.batch_size if config.partial_batch == "drop" else train / config.batch_size
    forward, _ = _network_flops(config, "teacher" if config.method == "teacher" else "student")
    return round(config.epochs * (steps * step_flops(config) + test * forward))


def step_flops(config: RunConfig) -> int:
    """Operations of one training step: student forward and backward, teacher forward, what is trained beside."""
    by_step = config.method_class is not None and "step_logits" in config.method_class.needs
    _, flops = _network_flops(config, "teacher" if config.method == "teacher" else "student", by_step)
    if config.method_class is None or not config.method_class.needs_teacher:
        return flops * config.batch_size
    flops += _network_flops(config, "teacher")[0]
    alone = config.replace(epochs=1, seed=0)  # a long cache does not need them
    return flops * config.batch_size + _for_steps(lambda steps: _method_flops(alone, steps), config.timesteps)


def _for_steps(flops: Callable[[int], int], steps: int) -> int:
    """Operations for any T from those for 1 and 2: what is done once, and what is done at every step."""
    return flops(1) + (steps - 1) * (flops(2) - flops(1))


def _network_config(config: RunConfig, role: str, steps: int) -> RunConfig:
    """A config of everything that decides a network, and of nothing else."""
    names = {"dataset", "scale", "variant", role, *NETWORK}
    values = {name: getattr(config, name) for name in names}
    return RunConfig(method="teacher" if role == "teacher" else "baseline", timesteps=steps, **values)


@functools.cache
def _model(config: RunConfig, role: str) -> torch.nn.Module:
    with torch.device("meta"):
        return build_model(config, stand_in(config, 1), role)


def _by_step(config: RunConfig) -> bool:
    """Whether the teacher runs at every step."""
    return config.dataset in EVENT_DATASETS and config.teacher_input == "per_step"


def _network_flops(config: RunConfig, role: str, by_step: bool = False) -> tuple[int, int]:
    """Operations an image: forward, and forward and backward; `by_step`: the classifier runs at every step."""
    once = role == "teacher" and not _by_step(config)

    def flops(steps: int) -> Tensor:
        return torch.tensor(_flops_an_image(_network_config(config, role, steps), role, by_step))

    return tuple((flops(1) if once else _for_steps(flops, config.timesteps)).tolist())


@functools.cache
def _flops_an_image(config: RunConfig, role: str, by_step: bool) -> tuple[int, int]:
    model, batch = _model(config, role).train(), 2  # a batch norm of one pixel needs two images
    images = stand_in(config, 0).train.images
    x = torch.zeros(*images.shape[1:-3], batch, *images.shape[-3:], device="meta")
    with _Operations() as counter:
        logits = model.step_logits(x) if by_step else model(x)
        forward = counter.total
        logits.sum().backward()
    return forward // batch, counter.total // batch


@functools.cache
def _method_flops(config: RunConfig, steps: int) -> int:
    """Operations, forward and backward, of what a method makes of given features and logits of so many time steps."""
    models = {role: _model(_network_config(config, role, 1), role) for role in ("student", "teacher")}
    shapes, method, size = [model.feature_shapes() for model in models.values()], config.new_method(), config.batch_size
    ahead = ([steps] if _by_step(config) else []) + [size]
    with torch.device("meta"), _Operations() as counter:
        module = method.build(*shapes)
        features = [torch.zeros(steps, size, *shape, requires_grad=True) for shape in shapes[0]]
        targets = [torch.zeros(*ahead, *shape) for shape in shapes[1]]
        by_step = torch.zeros(steps, size, _sizes(config)[3], requires_grad=True)
        logits, labels = by_step.mean(0), torch.zeros(size, dtype=torch.int64)
        batch = Batch(
            labels=labels,
            logits=logits,
            features=features,
            cross_entropy=torch.nn.functional.cross_entropy(logits, labels),
            step_logits=by_step,
            teacher_logits=torch.zeros_like(logits),
            teacher_features=targets,
            trained=module(features, targets, None) if "teacher_features" in method.needs and module else None,
            teacher=models["teacher"],
        )
        method.losses(batch)["loss"].backward()
    return counter.total


class _Operations(TorchDispatchMode):
    """What FlopCounterMode counts, without its sums for every module, which take most of its time."""

    total = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        if count := flop_registry.get(function._overloadpacket):
            self.total += count(*arguments, **(options or {}), out_val=result)
        return result


# Memory


@dataclass(frozen=True)
class Memory:
    """Bytes of one training step; tensors alone, without the workspaces of libraries and an allocator's gaps."""

    weights: int  # of student, projectors and attention
    gradients: int
    optimizer: int
    teacher: int
    kept: int  # more than before the forward pass of a micro-batch, when it ends: activations kept, outputs, losses
    peak: int  # most at any moment of a step, all of the above included


def step_memory(config: RunConfig) -> Memory:
    """Memory of a training step of one process, operation by operation, without allocating it.

    All of the step is counted as a run does it: accumulation, checkpointing, precision. Operations are the CPU's; where
    a GPU's library keeps something of its own, it is not counted.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), _Live() as live:
        dataset = stand_in(config, config.batch_size)
        step = Step(config, *networks(config, dataset), device=None)  # stand-ins cannot be moved
        how = dict(train=True, seed=0, epoch=0, drop_last=True, device=step.device)
        x, y, _ = next(iter(epoch_batches(dataset, "train", config.batch_size, **how)))
        if x.dim() == 4:
            x = x.contiguous(memory_format=step.layout)
        return _measure_step(step, x, y, live)


def _measure_step(step: Step, x: Tensor, y: Tensor, live: "_Live") -> Memory:
    step.begin(0)
    trained, optimizer = list(step.trained.parameters()), step.optimizer
    for p in trained:  # the optimizer's state, as after a first step
        p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    live.peak, kept = live.now, 0
    for part in distributed.micro_batches(x, y, len(y), step.micro):
        before = live.now
        parts, _ = step.losses(part.x, part.y, part)
        kept = max(kept, live.now - before)
        (parts["loss"] * part.share).backward()
        del parts
    gradients = sum(p.grad.nbytes for p in trained if p.grad is not None)
    optimizer.step()
    teacher = step.teacher.parameters() if step.teacher is not None else ()
    return Memory(
        weights=sum(p.nbytes for p in trained),
        gradients=gradients,
        optimizer=sum(leaf.nbytes for leaf in tree_leaves(dict(optimizer.state)) if isinstance(leaf, Tensor)),
        teacher=sum(p.nbytes for p in teacher),
        kept=kept,
        peak=live.peak,
    )


class _Live(TorchDispatchMode):
    """Bytes of all tensors that are alive, made by operations inside the block."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._known:
            self._known.add(key)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, nbytes: int) -> None:
        self._known.discard(key)
        self.now -= nbytes
