"""One update: networks, a method and a config, on one batch."""

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sastc import distributed, recompute
from sastc.build import build_model
from sastc.calibration import SelfAttentiveCalibration, layer_pairs
from sastc.config import ConfigError, RunConfig
from sastc.data import Dataset
from sastc.losses import exact
from sastc.methods import Batch, Method
from sastc.records import RunError
from sastc.stm import MeanMismatch


def networks(config: RunConfig, dataset: Dataset) -> tuple[nn.Module, nn.Module | None]:
    """The network that a run trains, with its first weights, and its untrained teacher."""
    is_teacher = config.method == "teacher"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_model(config, dataset, "teacher" if is_teacher else "student")
        return model, build_model(config, dataset, "teacher") if config.teacher and not is_teacher else None


class Step:
    """Networks, what the method trains beside the student, the optimizer, and one update of all on a batch.

    .. code-block:: python

        step = Step(config, *networks(config, dataset))
        step.begin(epoch=0)
        for x, y in batches:
            sums = step.update(x, y)  # sums["loss"] / len(y) is the loss

    The `model` to be trained is one of :func:`sastc.create_model` or has the same functions. The teacher is set to
    evaluation mode and gets no gradient. Both are moved to `device` in the memory layout of the config; with None they
    stay where and as they are. The method, what it trains beside the student (``nn.Identity`` if nothing) and the
    optimizer are the attributes `method`, `calibration` and `optimizer`.
    """

    gradients: dict[str, Tensor]
    """Norms and cosine of the gradients of the loss's two terms in the epoch's first batch, see :func:`compared`."""
    looked: dict[str, Tensor]
    """What :meth:`Method.look` gave in the last update with ``look=True``: means over the instances."""

    def __init__(
        self,
        config: RunConfig,
        model: nn.Module,
        teacher: nn.Module | None = None,
        *,
        device: str | torch.device | None = "cpu",
    ):
        self.config, self.method = config, config.new_method()
        self.device = next(model.parameters()).device if device is None else torch.device(device)
        if self.method.needs_teacher and teacher is None:
            raise RunError(f"method {self.method.name} needs a teacher")
        self.layout = torch.channels_last if config.memory_format == "channels_last" else torch.contiguous_format
        self.model, self.teacher = model, None if teacher is None else teacher.eval().requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.calibration = _beside(config, self.method, model, teacher)
        for network in (model, teacher, self.calibration):
            if network is not None and device is not None:
                network.to(self.device, memory_format=self.layout)
        trained = distributed.Trained(self.model, self.calibration, by_step="step_logits" in self.method.needs)
        if distributed.size() > 1 and config.batch_norm == "global":
            distributed.synchronise(trained, self.device)
        if config.checkpoint == "blocks":
            recompute.enable(trained)
        self.trained = distributed.parallel(trained, self.device, self.method.leaves_unused)
        self.optimizer = optimizer(config, [*self.model.parameters(), *self.calibration.parameters()])
        self.micro = config.batch_size // config.accumulate
        self.epoch, self.gradients, self.looked = 0, {}, {}
        self._updates: int | None = None  # in the epoch; None: not known
        self._done, self._first = 0, True  # of these, and whether the next compares gradients
        self.compiler: str | None = None
        self._compiled = self.trained

    def compile(self, backend: str) -> None:
        """Compile both passes of the student and of what is trained beside it; each epoch's first step stays eager."""
        if self.config.checkpoint != "none":
            raise RunError(f"compiler={backend!r}: must be left out with checkpoint={self.config.checkpoint}")
        # a replayed graph overwrites the gradients of the last replay, so nothing may still need those
        alone = self.config.accumulate == 1 and distributed.size() == 1
        replays = backend == "inductor" and self.device.type == "cuda" and alone
        options = {"mode": "reduce-overhead"} if replays else {}
        self.compiler = backend
        self._compiled = torch.compile(self.trained, backend=backend, dynamic=False, **options)

    def begin(self, epoch: int, updates: int | None = None, compare: bool = True) -> None:
        """Begin an epoch, counted from zero, of so many updates; networks go to training mode.

        The learning rate is that of each update's middle, or where `updates` is not known that of the epoch's middle.
        With `compare` the gradients of the loss's two terms are compared in the first update.
        """
        self.epoch, self._updates, self._done, self._first, self.gradients = epoch, updates, 0, compare, {}
        self.model.train()
        self.calibration.train()

    def update(
        self,
        x: Tensor,
        y: Tensor,
        instances: int | None = None,
        *,
        sums: dict[str, Tensor] | None = None,
        mismatch: MeanMismatch | None = None,
        look: bool = False,
    ) -> dict[str, Tensor]:
        """Forward, backward and update; returns sums over the instances here.

        They are of "loss", of each of its parts by name, and the number of "correct" answers.

        Parameters
        ----------
        x, y : Tensor
            Images (B, C, H, W), or sequences (T, B, C, H, W), and their classes (B,), on the step's device: this
            process's share of a batch of so many `instances`; by default it is the whole batch.
        sums : dict, optional
            Earlier sums, to which these are added.
        mismatch : MeanMismatch, optional
            The batch's similarity matrices are added to it.
        look : bool
            Put what :meth:`Method.look` gives, and the gradients of the loss's two terms, into `looked`.
        """
        sums, first, self._first = {} if sums is None else sums, self._first, False
        middle = (self._done + 0.5) / self._updates if self._updates else 0.5
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(self.epoch + middle)
        self._done += 1
        self.optimizer.zero_grad(set_to_none=True)
        for part in distributed.micro_batches(x, y, instances or len(y), self.micro):
            # gradients add up in this process until the last micro-batch; then they are averaged over all
            alone = part.last or distributed.size() == 1
            with contextlib.nullcontext() if alone else self.trained.no_sync():
                # a recorded step is not replayed, as its graph is needed more than once
                compiled = not first and not look
                losses, similarities = self.losses(part.x, part.y, part, mismatch is not None, look, compiled)
                if look or (first and not self.gradients):
                    found = self.compare(losses, len(part.y) / part.instances)
                    self.gradients = self.gradients or found
                    if look:
                        self.looked |= {"gradient": torch.stack(list(found.values()))} if found else {}
                        look = False  # in micro-batches, the first is enough
                (losses["loss"] * (part.share * distributed.size())).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value.detach() * (1 if name == "correct" else len(part.y))
            if mismatch is not None:
                student, teacher = similarities
                mismatch.add(student, teacher, part.instances)
        self.optimizer.step()
        return sums

    def losses(
        self,
        x: Tensor,
        y: Tensor,
        part: distributed.MicroBatch | None = None,
        measure: bool = False,
        look: bool = False,
        compiled: bool = False,
    ) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor] | None]:
        """Loss of one batch or micro-batch and its parts, and the similarity matrices if they are to be measured.

        Losses are means over the instances here; their means over micro-batches and processes are those of the step.
        """
        method, targets, soft = self.method, None, None
        shared = distributed.size() > 1 and self.config.similarity == "global" and part is not None
        part = part or distributed.MicroBatch(x, y, len(y), share=1.0, last=True)
        instances = part.instances if shared else None
        with self.autocast():
            if self.teacher is not None and (method.needs_teacher or measure):
                # Not inference_mode, whose tensors autograd cannot save. Nor are the teacher's batch norms folded into
                # its convolutions: that changes the bits, and the teacher is the smaller part of a step.
                with torch.no_grad():
                    targets, soft = self.teacher.features(x)
            matched = targets if "teacher_features" in method.needs else None
            features, logits, steps, beside = (self._compiled if compiled else self.trained)(x, matched, instances)
        cross_entropy = F.cross_entropy(exact(logits), y)
        batch = Batch(
            labels=y,
            logits=logits,
            features=features,
            cross_entropy=cross_entropy,
            step_logits=steps,
            teacher_logits=soft,
            teacher_features=targets,
            trained=beside,
            teacher=self.teacher,
            epoch=self.epoch,
            share=part.share,
        )
        losses = {"cross_entropy": cross_entropy} | _checked(method, method.losses(batch))
        if look:
            found = method.look(batch).items()
            self.looked = {name: distributed.total(value.sum(1)) / part.instances for name, value in found}
        similarities = method.similarities(batch) if measure else None
        if measure and similarities is None:
            similarities = SelfAttentiveCalibration.similarities([f.detach() for f in features], targets, instances)
        return losses | {"correct": (logits.argmax(-1) == y).sum()}, similarities

    def compare(self, losses: dict[str, Tensor], share: float = 1.0) -> dict[str, Tensor]:
        """Norms of the gradients of the two terms of the loss, and their cosine, see :func:`compared`."""
        if (terms := self.method.terms(losses, self.epoch)) is None:
            return {}
        return compared(terms, self.model, self.calibration, share)

    def autocast(self) -> torch.autocast:
        """The context in which the networks run."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def is_finite(self) -> bool:
        """Whether all weights are. A neuron that is fed NaN stays silent, so the loss alone does not tell."""
        return bool(torch.stack([p.isfinite().all() for p in self.trained.parameters()]).all())


def _beside(config: RunConfig, method: Method, model: nn.Module, teacher: nn.Module | None) -> nn.Module:
    """What a method trains beside the student."""
    if teacher is None:
        return nn.Identity()
    shapes = model.feature_shapes(), teacher.feature_shapes()
    for field in ("stm_pairs", "feature_pairs"):
        if field == "stm_pairs" or field in method.fields:
            try:
                layer_pairs(getattr(config, field), *map(len, shapes))
            except ValueError as error:
                raise ConfigError(str(error).replace("pairs=", f"{field}=", 1)) from None
    method.check_teacher(teacher)
    return method.build(*shapes) or nn.Identity()


def optimizer(config: RunConfig, weights: list[nn.Parameter]) -> torch.optim.SGD:
    """SGD of a config; batch norms and biases may be left without weight decay."""
    groups: list[dict[str, Any]] = [{"params": weights}]
    if not config.decay_norms:
        groups = [{"params": [w for w in weights if w.dim() > 1]}]
        groups += [{"params": [w for w in weights if w.dim() <= 1], "weight_decay": 0.0}]
    options = dict(lr=config.learning_rate, weight_decay=config.weight_decay, momentum=config.momentum)
    return torch.optim.SGD(groups, **options, nesterov=config.nesterov, fused=True)


def compared(terms: tuple[Tensor, Tensor], model: nn.Module, beside: nn.Module, share: float) -> dict[str, Tensor]:
    """Norms of the student's gradients of two terms of a loss in one batch, and the cosine between them.

    `gradient_projectors` is the norm of the second's gradient on what is trained `beside` the student. `share` is that
    of this process in the batch, or in the micro-batch.
    """
    student, helpers = ([p for p in part.parameters() if p.requires_grad] for part in (model, beside))
    options = dict(retain_graph=True, allow_unused=True, materialize_grads=True)
    kd = torch.autograd.grad(share * terms[0], student, **options)
    feature = torch.autograd.grad(share * terms[1], [*student, *helpers], **options)
    parts = (kd, feature[: len(kd)], feature[len(kd) :])
    flat = [distributed.total(torch.cat([g.flatten() for g in part])) for part in parts]
    norms = [g.norm() for g in flat]
    names = ("gradient_kd", "gradient_feature", "gradient_projectors")
    cosine = flat[0] @ flat[1] / (norms[0] * norms[1]).clamp_min(1e-30)
    return dict(zip(names, norms, strict=True)) | {"gradient_cosine": cosine}


def _checked(method: Method, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """A method's losses, or an error that says what it must return."""
    if not (
        isinstance(losses, dict)
        and "loss" in losses
        and all(isinstance(value, Tensor) and value.dim() == 0 for value in losses.values())
        and not {"cross_entropy", "correct"} & losses.keys()
    ):
        raise RunError(
            f"method {method.name}: losses() must return a dictionary of tensors of one number each, with 'loss', and "
            "without 'cross_entropy' and 'correct', which are recorded anyway"
        )
    return losses
