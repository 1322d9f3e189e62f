"""run(config): train a student or a teacher, or return the recorded result."""

import contextlib
import io
import os
import shlex
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from filelock import FileLock, Timeout
from torch import Tensor, nn
from tqdm.auto import tqdm

from sastc import distributed, native, recompute, records
from sastc.build import build_model, check_data, check_root, dataset_options
from sastc.build import dataset as _dataset
from sastc.build import load_model as load_model
from sastc.calibration import LayerDistances, SelfAttentiveCalibration, layer_pairs
from sastc.config import ConfigError, RunConfig
from sastc.data import Dataset, epoch_batches, num_batches
from sastc.data.identity import differences, facts
from sastc.energy import count_energy
from sastc.fisher import fisher_trace
from sastc.losses import feature_kd_loss, kd_loss, sastc_loss
from sastc.probe import Probe
from sastc.records import Run, RunError
from sastc.stm import MeanMismatch, stm_from_mismatch

Batches = Iterator[tuple[Tensor, Tensor, Tensor]]  # images, labels, places in the split
ENERGY_IMAGES = 1024  # the paper's energy table counts on as many
FIRST_STEPS = 20  # all of which attention_steps looks at
# Fields that decide what one teacher alone looks like.
OWN_FIELDS = {"resnet18": ("resnet18_variant",), "wrn16_2": ("wrn16_2_variant",)}
OWN_FIELDS |= {"vgg11": ("vgg_downsample", "vgg_head")}


def run(
    config: RunConfig,
    *,
    results: str | Path = "results",
    data: str | Path = "data",
    device: str | torch.device = "auto",
    progress: bool = True,
    force: bool = False,
    compiler: str | None = None,
) -> Run:
    """Train what `config` describes, or return the recorded run if it is there and complete.

    A recorded run, or a teacher, is taken only for the data that it was made from, where the data can be loaded; where
    they cannot, what was recorded is returned as it is.

    The teacher is trained first where there is none yet. An interrupted run goes on from its last epoch and ends with
    the same numbers, bit for bit on the CPU with the same number of threads. Under torchrun all processes train the run
    together, each with its share of every batch, and the first one records; their number may change when a run goes on.

    Parameters
    ----------
    config : RunConfig
        What to run.
    results, data : path
        Where runs are recorded, and where datasets are looked for.
    device : str
        "auto" takes a GPU where there is one.
    progress : bool
        Show a progress bar.
    force : bool
        Run again, from the first epoch, even if a result is recorded. The new one takes its place when it is complete.
    compiler : str, optional
        Compile the student's steps with this backend of ``torch.compile``; "inductor" replays them as CUDA graphs on a
        single GPU that accumulates no gradients. Their numbers differ by rounding, which flips spikes, and the
        provenance says so. By default neurons alone are compiled, which changes nothing.

    Raises
    ------
    RunError
        The run cannot start or go on: another process has it, the folder cannot be written, the data is too small for
        the batch size or other than that of the record or of the teacher, or the loss is no longer finite. What was
        recorded before is kept.
    """
    check_root(data)
    datasets = _Datasets(data)
    return _run(config, force, compiler, results=results, datasets=datasets, device=device, progress=progress)


class _Datasets:
    """The datasets that one call of :func:`run` needs, each loaded once."""

    def __init__(self, root: str | Path):
        self.root, self.loaded = root, {}

    def of(self, config: RunConfig) -> Dataset:
        """That of a config."""
        key = tuple(dataset_options(config).items())
        if key not in self.loaded:
            self.loaded[key] = _dataset(config, self.root)
        return self.loaded[key]

    def check(self, recorded: Run, config: RunConfig) -> None:
        """Raise a RunError if the data at hand are not those of the record; none at hand is no mistake."""
        try:
            now = self.of(config)
        except OSError:
            return
        check_data(recorded, now)


def _run(
    config: RunConfig, force: bool = False, compiler: str | None = None, needs_weights: bool = False, **options: Any
) -> Run:
    """:func:`run`; with `needs_weights` a recorded run without weights is made again, or goes on being made again."""
    folder, datasets = records.run_path(config, options["results"]), options["datasets"]
    recorded = Run(folder)

    def done() -> bool:
        if not recorded.complete or force:
            return False
        datasets.check(recorded, config)
        return (folder / "weights.pt").exists() or not needs_weights

    with distributed.processes(options["device"]) as device, contextlib.ExitStack() as stack:
        stack.enter_context(_convolutions(tf32=config.precision == "tf32"))
        if distributed.once(done):
            return recorded
        if config.precision == "bf16" and device.type == "cpu" and not native.has_bf16():
            warnings.warn(
                "this processor has neither amx_bf16 nor avx512_bf16: precision=bf16 is about 3.5 times slower here "
                "than fp32; set precision=fp32, which makes a run of its own name",
                stacklevel=3,
            )
        distributed.once(lambda: stack.enter_context(_locked(folder)))
        distributed.once(lambda: records.take_over(folder))  # if a process was killed doing so
        if distributed.once(done):  # another process has just finished it
            return recorded
        place = distributed.once(lambda: folder / records.AGAIN if recorded.complete else folder)
        # mistakes show before work starts
        training = _Training(config, place, datasets.of(config), device, options["progress"])
        if compiler:
            training.compile(compiler)
        if not force:
            distributed.once(lambda: training.check_begun("data", facts(training.dataset)))
        training.run(_teacher(config, **options | {"device": device}), from_start=force)
        distributed.once(lambda: records.take_over(folder))
        return recorded


@contextlib.contextmanager
def _convolutions(tf32: bool) -> Iterator[None]:
    """Whether a GPU's convolutions round float32 to 10 bits of mantissa, which is torch's default, inside the block."""
    was = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = was


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. The operating system frees it when the process ends, however it ends."""
    records.write(folder / ".writable", "")  # a full disk or a read-only folder shows before any work starts
    (folder / ".writable").unlink(missing_ok=True)  # another process may try at the same moment
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"{folder} is being written by another process: wait for it, or stop it") from None
    try:
        yield
    finally:
        # Of a run that was refused nothing stays. The file goes while it is locked: filelock takes none that has gone.
        with contextlib.suppress(OSError):  # another process has just come
            if os.listdir(folder) == [".lock"]:
                (folder / ".lock").unlink()
                folder.rmdir()
        lock.release()


def _teacher(config: RunConfig, **options: Any) -> Run | None:
    """The run of the config's teacher, trained if need be, with its weights at hand."""
    if config.teacher_run:
        return distributed.once(lambda: _recorded_teacher(config, options["results"], options["datasets"].of(config)))
    if (wanted := config.teacher_config()) is None:
        return None
    path = records.run_path(wanted, options["results"])
    # weights are not kept in git
    weights_missing = distributed.once(lambda: Run(path).complete and not (path / "weights.pt").exists())
    recorded = distributed.once(lambda: Run(path).metrics["weights_sha256"]) if weights_missing else None
    teacher = _run(wanted, needs_weights=True, **options)
    if recorded and distributed.rank() == 0 and (made := teacher.metrics["weights_sha256"]) != recorded:
        warnings.warn(
            f"{teacher.name} is trained again, as its weights were missing, and is not the recorded teacher: weights "
            f"{made[:10]} instead of {recorded[:10]}. Students of the two are not pairs; compare within one of them",
            stacklevel=2,
        )
    return teacher


def _recorded_teacher(config: RunConfig, results: str | Path, dataset: Dataset) -> Run:
    """The run that `teacher_run` names, of the teacher that the config asks for."""
    try:
        teacher = records.find_run(config.teacher_run, results)
    except RunError as error:
        raise RunError(f"teacher_run={error}") from None
    was, config = teacher.config, config.replace(width=config.teacher_width or config.width)
    if was.method != "teacher" or not (teacher.complete and (teacher.path / "weights.pt").exists()):
        raise RunError(f"teacher_run={config.teacher_run!r}: must be a finished teacher run with its weights.pt")
    names = ("teacher", "dataset", "width", "image_size", *OWN_FIELDS.get(config.teacher, ()))
    if other := [name for name in names if getattr(was, name) != getattr(config, name)]:
        trained, asked = (", ".join(f"{name}={getattr(c, name)!r}" for name in other) for c in (was, config))
        raise RunError(f"teacher_run={config.teacher_run!r}: was trained with {trained}; {asked} was asked for")
    recorded, now = teacher.provenance.get("data", {}), facts(dataset)
    if other := differences(recorded, now, whole=True):  # of the same data it may have had another part
        raise RunError(
            f"teacher_run={config.teacher_run!r}: was trained on other data: {recorded.get('name')}, not the "
            f"{now['name']} of now (other {', '.join(other)}): must be a teacher of the data at hand"
        )
    return teacher


def _exact(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class _Training:
    """One training, from the first epoch or from a checkpoint to the recorded run."""

    def __init__(
        self, config: RunConfig, folder: Path, data: str | Path | Dataset, device: torch.device, progress: bool
    ):
        self.config, self.folder, self.device = config, folder, device
        self.others = records.restart_peak_memory(device)  # the student's, while its teacher is trained
        self.writes = distributed.rank() == 0
        self.progress = progress and self.writes
        self.dataset = data if isinstance(data, Dataset) else _dataset(config, data)
        self.keep_last = config.partial_batch == "keep"
        self.batches = num_batches(self.dataset, "train", config.batch_size, drop_last=not self.keep_last)
        if self.batches == 0:
            raise RunError(
                f"batch_size={config.batch_size} of {config.name}: the training split has {len(self.dataset.train)} "
                f"images; must be at most that, {self._way_out()}"
            )
        images = len(self.dataset.train)
        if config.fisher_samples > images:
            raise RunError(f"fisher_samples={config.fisher_samples}: must be at most the {images} training images")
        self.micro = distributed.micro_batch_size(images, config.batch_size, config.accumulate, self.keep_last)
        is_teacher = config.method == "teacher"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = build_model(config, self.dataset, "teacher" if is_teacher else "student").to(device)
            self.teacher = None
            if config.teacher and not is_teacher:
                self.teacher = build_model(config, self.dataset, "teacher").to(device).eval().requires_grad_(False)
            torch.manual_seed(config.seed)
            self.calibration = self._calibration().to(device)
        self.layout = torch.channels_last if config.memory_format == "channels_last" else torch.contiguous_format
        for network in (self.model, self.teacher, self.calibration):
            if network is not None:
                network.to(memory_format=self.layout)
        trained = distributed.Trained(self.model, self.calibration)
        if distributed.size() > 1 and config.batch_norm == "global":
            distributed.synchronise(trained, device)
        if config.checkpoint == "blocks":
            recompute.enable(trained)
        unused = config.method == "sastc" and config.attention != "learned"  # the MLPs of the controls
        self.trained = distributed.parallel(trained, device, unused)
        weights = [*self.model.parameters(), *self.calibration.parameters()]
        groups = [{"params": weights}]
        if not config.decay_norms:
            groups = [{"params": [w for w in weights if w.dim() > 1]}]
            groups += [{"params": [w for w in weights if w.dim() <= 1], "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(
            groups,
            lr=config.learning_rate,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.probe = Probe(self.dataset, config.probe_batches * config.batch_size, self._test_batches, self._autocast)
        self.test_share = self.dataset
        if distributed.size() > 1:
            places = range(distributed.rank(), len(self.dataset.test), distributed.size())
            self.test_share = replace(self.dataset, test=self.dataset.test.take(places))
        self.compiler, self.faster = None, self.trained
        self.beta = config.beta_at(0)  # of the epoch that is trained
        self.history: list[dict[str, float]] = []
        self.measures: dict[str, list[Tensor]] = {}  # one array an epoch
        self.steps: dict[str, list[Tensor]] = {}  # one array for each of the steps that attention_steps chooses
        self.final: dict[str, np.ndarray] = {}  # measured once, at the end

    def _way_out(self) -> str:
        """What helps where the training split is smaller than a batch."""
        config, images = self.config, len(self.dataset.train)
        if config.method != "teacher":
            return "or partial_batch=keep"
        ways = ["for a teacher of all images, subset_teacher=full"] if config.train_fraction < 1 else []
        if images > 1:  # a teacher with settings of its own is a run of its own
            own = config.replace(batch_size=images)
            ways.append(f"first train {shlex.join(own.arguments)}, then give the student teacher_run={own.name}")
        return "; or ".join(ways or ["get more images"])

    def compile(self, backend: str) -> None:
        """Compile the student and what is trained beside it, both passes; an epoch's first step stays as it is."""
        if self.config.checkpoint != "none":
            raise RunError(f"compiler={backend!r}: must be left out with checkpoint={self.config.checkpoint}")
        # a replayed graph writes its gradients where the last replay's are: there must be no need of those any more
        alone = self.config.accumulate == 1 and distributed.size() == 1
        replays = backend == "inductor" and self.device.type == "cuda" and alone
        options = {"mode": "reduce-overhead"} if replays else {}
        self.compiler = backend
        self.faster = torch.compile(self.trained, backend=backend, dynamic=False, **options)

    def _calibration(self) -> nn.Module:
        """What the method trains besides the student."""
        if self.teacher is None:
            return nn.Identity()
        config, shapes = self.config, (self.model.feature_shapes(), self.teacher.feature_shapes())
        self.layers = tuple(len(s) for s in shapes)
        self._pairs("stm_pairs")
        sizes = dict(resize_student=config.resize_student, small_student=config.small_student)
        sizes |= dict(projector_bn=config.projector_bn, target_norm=config.target_norm)
        sizes |= dict(target_scale=config.target_scale)
        if config.method == "feature_kd":
            return LayerDistances(*shapes, self._pairs("feature_pairs"), **sizes)
        if config.method == "sastc":
            names = ("qk_norm", "score_scale", "mlp_sharing", "sim_norm", "sim_order", "detach_sim", "attention")
            options = {name: getattr(config, name) for name in names}
            return SelfAttentiveCalibration(*shapes, config.mlp_dim, **options, **sizes)
        return nn.Identity()

    def _pairs(self, field: str) -> list[tuple[int, int]]:
        """The layer pairs of a field; an error names it."""
        try:
            return layer_pairs(getattr(self.config, field), *self.layers)
        except ValueError as error:
            raise ConfigError(str(error).replace("pairs=", f"{field}=", 1)) from None

    def run(self, teacher: Run | None, from_start: bool = False) -> None:
        """Train to the end and record; goes on from a checkpoint unless `from_start`."""
        config, folder = self.config, self.folder
        if teacher:
            state = distributed.once(lambda: torch.load(teacher.weights, map_location="cpu", weights_only=True))
            try:
                self.teacher.load_state_dict(state)
            except RuntimeError as error:
                reason = str(error).splitlines()[-1].strip()
                raise RunError(
                    f"{teacher.path}: its weights are not of a teacher of these {self.dataset.num_classes} classes "
                    f"and this network ({reason}): train it on the data at hand"
                ) from None
        records.restart_peak_memory(self.device)  # the teacher's training, in the same process, does not count
        if from_start and self.writes:
            records.remove_checkpoints(folder)
        first = self._resume(teacher)
        if self.writes:
            self._write_beginning(teacher, first)
        best = max((row["test_accuracy"] for row in self.history), default=-1.0)
        name = f"{config.student or config.teacher} {config.method}"
        bar = tqdm(total=config.epochs * self.batches, initial=first * self.batches, desc=name, unit="step",
                   disable=not self.progress, dynamic_ncols=True)  # fmt: skip
        with bar:
            for epoch in range(first, config.epochs):
                if self._stop_early():
                    break
                row = self._epoch(epoch, bar)
                if not np.isfinite(row["train_loss"]) or not self._weights_are_finite():
                    what = "a weight" if np.isfinite(row["train_loss"]) else "the loss"
                    raise RunError(
                        f"{what} is not finite in epoch {epoch + 1} of {config.name}: "
                        "try a smaller learning_rate or beta; the epochs before are kept"
                    )
                self.history.append(row)
                best = max(best, row["test_accuracy"])
                bar.set_postfix_str(f"loss {row['train_loss']:.3g}, test {row['test_accuracy']:.2f} %")
                if self.writes:
                    self._checkpoint()
        peak = records.peak_memory_bytes(self.device) - self.others  # before what is measured at the end
        self._measure_at_the_end()
        if self.writes:
            self._finish(best, peak)

    def _write_beginning(self, teacher: Run | None, first: int) -> None:
        """Record what is about to be run, from which epoch."""
        config, folder = self.config, self.folder
        records.write_json(folder / "config.json", config.to_dict())
        provenance = records.provenance(config.command, self.device, torch.get_num_threads())
        provenance["processes"] = distributed.size()
        provenance["data"] = facts(self.dataset)
        if teacher:
            provenance["teacher"] = self._facts_of(teacher)
        provenance["resumed_at_epoch"] = first or None
        provenance["compiler"] = self.compiler
        if first and (folder / "provenance.json").exists():
            was = Run(folder).provenance
            here = {name: was[name] for name in ("commit", "dirty", "started", "resumed_at_epoch")}
            provenance["begun"] = [*was.get("begun", ()), here]
        records.write_json(folder / "provenance.json", provenance)
        if config.train_subset or config.train_fraction < 1 or config.label_noise:
            train = self.dataset.train
            noisy = (train.labels != train.clean_labels).nonzero().flatten()
            indices = dict(train_rows=train.rows, noisy_rows=train.rows[noisy], noisy_labels=train.labels[noisy])
            records.write_arrays(folder / "indices.npz", {name: rows.numpy() for name, rows in indices.items()})
        begun = f"resumed at epoch {first + 1}" if first else "started"
        where = f" in {distributed.size()} processes" if distributed.size() > 1 else ""
        self._log(f"{provenance['started']} {begun}{where}: {config.command}")

    @staticmethod
    def _facts_of(teacher: Run) -> dict[str, Any]:
        """What a student's record says of its teacher."""
        metrics = teacher.metrics
        return {"run": teacher.name, **{name: metrics[name] for name in ("weights_sha256", "accuracy")}}

    def check_begun(self, what: str, now: dict[str, Any]) -> None:
        """Raise a RunError unless the epochs of a checkpoint were made with this `what`, "data" or "teacher"."""
        if not any(self.folder.glob("checkpoint*.pt")) or not (self.folder / "provenance.json").exists():
            return
        was = Run(self.folder).provenance.get(what, {})
        other = [name for name in {**was, **now} if was.get(name) != now.get(name)]
        if other := differences(was, now) if what == "data" else other:
            before, after = (found.get("name", found.get("run")) for found in (was, now))
            raise RunError(
                f"{self.config.name} was begun with {what} {before}, not the {what} {after} of now "
                f"(other {', '.join(other)}): go on with the former, or start again with force"
            )

    def _epoch(self, epoch: int, bar: tqdm) -> dict[str, float]:
        """Train one epoch and evaluate; returns the history's row."""
        config, self.beta = self.config, self.config.beta_at(epoch)
        start, cpu_start = time.perf_counter(), time.process_time()
        self.model.train()
        self.calibration.train()
        sums: dict[str, Tensor] = {}  # stay on the device until the epoch ends
        mismatch, seen, gradients = MeanMismatch(), 0, {}
        for step, (x, y, _) in enumerate(self._train_batches(epoch)):
            measure = self.teacher is not None and (config.stm_batches == 0 or step < config.stm_batches)
            whole = min(config.batch_size, len(self.dataset.train) - step * config.batch_size)  # over all processes
            for group in self.optimizer.param_groups:
                group["lr"] = config.learning_rate_at(epoch + (step + 0.5) / self.batches)  # the middle of the step
            self.optimizer.zero_grad(set_to_none=True)
            looked_at = self._looked_at(epoch * self.batches + step)
            for part in distributed.micro_batches(x, y, whole, self.micro):
                with self._gradients_stay_here(until=part.last):
                    # a step that is looked at is not replayed: its graph is needed more than once
                    compiled = seen > 0 and not looked_at
                    parts, similarities = self._losses(part.x, part.y, measure, part, compiled)
                    if (looked_at or (seen == 0 and not gradients)) and "feature_loss" in parts:
                        found = self._gradients(parts, len(part.y) / part.instances)
                        gradients = gradients or found
                        if looked_at:
                            self._keep_step(epoch * self.batches + step, found, part.instances)
                            looked_at = False  # in micro-batches, the first is enough
                    (parts["loss"] * (part.share * distributed.size())).backward()
                for name, value in parts.items():
                    sums[name] = sums.get(name, 0) + value.detach() * (1 if name == "correct" else len(part.y))
                if measure:
                    mismatch.add(*similarities, part.instances)
            self.optimizer.step()
            seen += whole
            bar.update()
        totals = distributed.total(torch.stack([value.double() for value in sums.values()])).tolist()
        means = {name: value / seen for name, value in zip(sums, totals, strict=True)}
        row = {
            "epoch": epoch + 1,
            "learning_rate": config.learning_rate_at(epoch + 0.5),
            "train_loss": means.pop("loss"),
        }
        row |= {"train_accuracy": 100 * means.pop("correct")} | means
        row |= {name: value.item() for name, value in gradients.items()}
        row |= {"train_seconds": time.perf_counter() - start}
        row |= {"train_cpu_seconds": time.process_time() - cpu_start}  # of all threads, whatever else the machine does
        start = time.perf_counter()
        row |= self._evaluate()
        row |= {"inference_seconds": time.perf_counter() - start}
        if self.teacher is not None:
            mean = {name: value.cpu() for name, value in mismatch.means().items()}
        if self.teacher is not None and self.writes:
            probed = self.probe.epoch(self.model, self.teacher, self.calibration)
            weights = probed["attention"].cpu() if config.stm_weighted else None
            self._keep(**probed, **{f"mismatch_{name}": value for name, value in mean.items()})
            row["stm"] = stm_from_mismatch(
                mean[config.stm_distance],
                pairs=config.stm_pairs,
                weights=weights,
                log_base=config.stm_log_base,
            )
        if config.fisher_samples and self.writes:
            self._keep(fisher=self._fisher())
        return row | {"test_seconds": time.perf_counter() - start}

    def _looked_at(self, step: int) -> bool:
        every = self.config.attention_steps
        return every > 0 and (step < FIRST_STEPS or step % every == 0)

    def _keep_step(self, step: int, gradients: dict[str, Tensor], instances: int) -> None:
        """Keep what the calibration did in one training step, for `attention_steps`."""
        attention, distances = self.calibrated
        easiest = (attention.argmax(-1) == distances.argmin(-1)).float()
        sums = [distributed.total(values.sum(1)) / instances for values in (attention, distances, easiest)]
        arrays = dict(zip(("attention", "distance", "easiest"), sums, strict=True), number=torch.tensor(step))
        arrays["gradient"] = torch.stack(list(gradients.values()))
        if self.writes:
            for name, array in arrays.items():
                self.steps.setdefault(f"step_{name}", []).append(array.cpu())

    def _gradients_stay_here(self, until: bool) -> contextlib.AbstractContextManager:
        """Gradients add up in this process until the step's last micro-batch; then they are averaged over all."""
        return contextlib.nullcontext() if until or distributed.size() == 1 else self.trained.no_sync()

    def _losses(
        self,
        x: Tensor,
        y: Tensor,
        measure: bool,
        part: distributed.MicroBatch | None = None,
        compiled: bool = False,
    ) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor] | None]:
        """Losses of one batch or micro-batch, and the similarity matrices where they are measured.

        Losses are means over the instances here; their means over micro-batches and processes are those of the step.
        """
        config, similarities, targets = self.config, None, None
        shared = distributed.size() > 1 and config.similarity == "global" and part is not None
        instances = part.instances if shared else None
        with self._autocast():
            if self.teacher is not None and (config.method != "baseline" or measure):
                # Not inference_mode, whose tensors autograd cannot save. Nor are the teacher's batch norms folded into
                # its convolutions: that changes the bits, and the teacher is the smaller part of a step.
                with torch.no_grad():
                    targets, soft = self.teacher.features(x)
            matched = targets if config.method in ("feature_kd", "sastc") else None
            features, logits, distances = (self.faster if compiled else self.trained)(x, matched, instances)
        parts = {"cross_entropy": F.cross_entropy(_exact(logits), y)}
        loss = parts["cross_entropy"]
        if config.method in ("kd", "feature_kd", "sastc"):
            weights = dict(kl_weight=config.kl_weight, ce_weight=config.ce_weight)
            loss = parts["kd_loss"] = kd_loss(logits, soft, y, temperature=config.temperature, **weights)
        if config.method == "feature_kd":
            parts["feature_loss"] = feature_kd_loss(distances)
        elif config.method == "sastc":
            parts["feature_loss"] = sastc_loss(distances.attention, distances.distances, config.reduction)
            if config.reduction == "sum" and part is not None:
                parts["feature_loss"] = parts["feature_loss"] / part.share
            similarities = (distances.student_similarity.detach(), distances.teacher_similarity)
            if config.attention_steps:
                self.calibrated = distances.attention.detach(), distances.distances.detach()
        if "feature_loss" in parts:
            loss = loss + self.beta * parts["feature_loss"]  # Eq. 7
        if measure and similarities is None:
            similarities = SelfAttentiveCalibration.similarities([f.detach() for f in features], targets, instances)
        return parts | {"loss": loss, "correct": (logits.argmax(-1) == y).sum()}, similarities

    def _gradients(self, parts: dict[str, Tensor], share: float) -> dict[str, Tensor]:
        """What the two terms of Eq. 7 want of the student in one batch: norms of their gradients, and their cosine.

        `gradient_projectors` is the norm of the feature loss's gradient on the projectors and the attention. `share` is
        that of this process in the batch, or in the micro-batch.
        """
        student, helpers = (list(part.parameters()) for part in (self.model, self.calibration))
        options = dict(retain_graph=True, allow_unused=True, materialize_grads=True)
        kd = torch.autograd.grad(share * parts["kd_loss"], student, **options)
        feature = torch.autograd.grad(share * self.beta * parts["feature_loss"], [*student, *helpers], **options)
        parts_of = (kd, feature[: len(kd)], feature[len(kd) :])
        flat = [distributed.total(torch.cat([g.flatten() for g in part])) for part in parts_of]
        norms = [g.norm() for g in flat]
        names = ("gradient_kd", "gradient_feature", "gradient_projectors")
        cosine = flat[0] @ flat[1] / (norms[0] * norms[1]).clamp_min(1e-30)
        return dict(zip(names, norms, strict=True)) | {"gradient_cosine": cosine}

    @torch.no_grad()
    def _evaluate(self) -> dict[str, float]:
        """Loss and accuracy on the whole test split, of which every process takes its share."""
        self.model.eval()
        if self.config.batch_norm == "per_process":
            distributed.share_buffers(self.model)
        loss = correct = torch.zeros((), device=self.device)
        for x, y, _ in self._test_batches(self.test_share):
            with self._autocast():
                logits = _exact(self.model(x))
            loss = loss + F.cross_entropy(logits, y, reduction="sum")
            correct = correct + (logits.argmax(-1) == y).sum()
        loss, correct = distributed.total(torch.stack([loss.double(), correct.double()])).tolist()
        n = len(self.dataset.test)
        return {"test_loss": loss / n, "test_accuracy": 100 * correct / n}

    def _fisher(self) -> Tensor:
        """Temporal Fisher information (T,) on the first training images, as they are stored."""
        part = replace(self.dataset, test=self.dataset.train.take(range(self.config.fisher_samples)))
        traces = [fisher_trace(self.model, x, y) * len(y) for x, y, _ in self._test_batches(part)]
        return torch.stack(traces).sum(0) / len(part.test)

    def _train_batches(self, epoch: int) -> Batches:
        config = self.config
        return self._placed(
            epoch_batches(
                self.dataset,
                "train",
                config.batch_size,
                train=True,
                seed=config.seed,
                epoch=epoch,
                drop_last=not self.keep_last,
                device=self.device,
                reshuffle=config.reshuffle,
                rank=distributed.rank(),
                world_size=distributed.size(),
            )
        )

    def _test_batches(self, dataset: Dataset | None = None) -> Batches:
        """The test split as it is, of another dataset if given."""
        dataset = dataset or self.dataset
        options = dict(train=False, seed=0, epoch=0, drop_last=False, device=self.device)
        return self._placed(epoch_batches(dataset, "test", self.config.batch_size, **options))

    def _placed(self, batches: Batches) -> Batches:
        for x, y, index in batches:
            yield x.contiguous(memory_format=self.layout) if x.dim() == 4 else x, y, index

    def _autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def _keep(self, **arrays: Tensor) -> None:
        for name, array in arrays.items():
            self.measures.setdefault(name, []).append(array.cpu())

    def _weights_are_finite(self) -> bool:
        """A neuron that is fed NaN stays silent, so the loss alone does not tell."""
        return bool(torch.stack([p.isfinite().all() for p in self.trained.parameters()]).all())

    def _stop_early(self) -> bool:
        accuracies = [row["test_accuracy"] for row in self.history]
        return (
            self.config.early_stop > 0
            and len(accuracies) - 1 - int(np.argmax(accuracies or [0])) >= self.config.early_stop
        )

    def _checkpoint(self) -> None:
        """Record the epoch: readable files first, then the checkpoint that a resumed run starts from."""
        self._write_records()
        states = dict(model=self.model, calibration=self.calibration, optimizer=self.optimizer)
        state = {name: part.state_dict() for name, part in states.items()}
        records.save_checkpoint(
            self.folder, state | dict(history=self.history, measures=self.measures, steps=self.steps)
        )
        row = self.history[-1]
        self._log("  ".join(f"{name} {value:.6g}" for name, value in row.items()))

    def _write_records(self) -> None:
        records.write(self.folder / "history.csv", pd.DataFrame(self.history).to_csv(index=False))
        lists = self.measures | self.steps
        arrays = {name: torch.stack(values).numpy() for name, values in lists.items()} | self.final
        if self.teacher is not None:
            arrays["student_layers"] = np.array(self.model.tap_names)
            arrays["teacher_layers"] = np.array(self.teacher.tap_names)
        if arrays:
            records.write_arrays(self.folder / "measures.npz", arrays)

    def _resume(self, teacher: Run | None) -> int:
        """Load the latest undamaged checkpoint; returns the number of epochs done.

        Raises a RunError where it was made with another teacher.
        """
        state, notes = distributed.once(lambda: records.load_checkpoint(self.folder))
        for note in notes:
            self._log(note)
        if state is None:
            return 0
        distributed.once(lambda: self.check_begun("teacher", self._facts_of(teacher) if teacher else {}))
        self.model.load_state_dict(state["model"])
        self.calibration.load_state_dict(state["calibration"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history, self.measures, self.steps = state["history"], state["measures"], state.get("steps", {})
        return len(self.history)

    @torch.no_grad()
    def _measure_at_the_end(self) -> None:
        """What pages show of the trained network: confusion, accuracy after each step, single images, energy."""
        self.model.eval()
        n, classes = len(self.dataset.test), self.dataset.num_classes
        confusion = correct = 0
        answers = torch.zeros(n, dtype=torch.int64, device=self.device)  # of all processes, by place in the split
        for x, y, places in self._test_batches(self.test_share):
            with self._autocast():
                predicted = self.model.logits_by_step(x).float().argmax(-1)  # (T, B)
                # what the accuracy counts: in bf16 rounding may tell the two apart
                predicted[-1] = self.model(x).argmax(-1)
            correct = correct + (predicted == y).sum(-1)
            confusion = confusion + torch.bincount(classes * y + predicted[-1], minlength=classes**2)
            answers[distributed.rank() + distributed.size() * places] = predicted[-1]
        confusion, correct, answers = map(distributed.total, (confusion, correct, answers))
        if not self.writes:
            return
        self.final = {
            "confusion": confusion.view(classes, classes).cpu().numpy(),
            "accuracy_by_step": (100 * correct / n).cpu().numpy(),
            "predicted": answers.to(torch.int16).cpu().numpy(),
            **self.probe.final(self.model, self.teacher),
        }
        part = replace(self.dataset, test=self.dataset.test.take(range(min(n, ENERGY_IMAGES))))
        energy = count_energy(self.model, (x for x, _, _ in self._test_batches(part)))
        records.write(self.folder / "energy.csv", energy.layers.to_csv(index=False))

    def _finish(self, best: float, peak: int) -> None:
        config, last = self.config, self.history[-1]
        names = ["train_seconds", "inference_seconds", "test_seconds"]
        seconds = pd.DataFrame(self.history).reindex(columns=names).mean().to_dict()
        self._write_records()
        buffer = io.BytesIO()
        weights = self.model.state_dict()
        for name, weight in weights.items():
            weights[name] = weight.cpu()  # a file for every machine, and the same bytes from every device
        torch.save(weights, buffer)
        records.write(self.folder / "weights.pt", buffer.getvalue())
        metrics = {
            "accuracy": last["test_accuracy"] if config.headline == "last" else best,
            "last_accuracy": last["test_accuracy"],
            "best_accuracy": best,
            "best_epoch": 1 + int(np.argmax([row["test_accuracy"] for row in self.history])),
            "epochs": len(self.history),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "train_seconds_per_epoch": seconds["train_seconds"],
            "inference_seconds": seconds["inference_seconds"],
            "test_seconds": seconds["test_seconds"],
            "peak_memory_bytes": peak,
            "weights_sha256": records.sha256(self.folder / "weights.pt"),
            "finished": records.now(),
        }
        if "stm" in last:  # the paper averages the last ten epochs
            metrics["stm"] = float(np.mean([row["stm"] for row in self.history[-10:]]))
        self._log(f"{metrics['finished']} finished: accuracy {metrics['accuracy']:.2f} %")
        records.seal(self.folder, "metrics.json", records.json_bytes(metrics))
        records.remove_checkpoints(self.folder)

    def _log(self, line: str) -> None:
        if not self.writes:
            return
        try:
            with open(self.folder / "log.txt", "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise RunError(f"cannot write {self.folder / 'log.txt'}: {error.strerror}") from error
