"""The loop over epochs: train, test, measure, record."""

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from sastc import distributed, records
from sastc.config import RunConfig
from sastc.data import Dataset, epoch_batches, num_batches
from sastc.energy import COLUMNS, count_energy
from sastc.fisher import fisher_trace
from sastc.losses import exact
from sastc.models.own import OwnNetwork
from sastc.probe import Probe
from sastc.records import DivergedError, Run, RunError
from sastc.stm import MeanMismatch, stm_from_mismatch
from sastc.train.recorder import Recorder
from sastc.train.step import Step, networks
from sastc.train.teacher import load_weights

Batches = Iterator[tuple[Tensor, Tensor, Tensor]]  # images, labels, places in the split
ENERGY_IMAGES = 1024  # the paper's energy table counts on as many
FIRST_STEPS = 20  # attention_steps records all of these


class Trainer:
    """One training, from the first epoch or from a checkpoint to the recorded run.

    Its `step` has the networks, the method and the optimizer, its `recorder` the history, the measures and the files.
    """

    def __init__(self, config: RunConfig, folder: Path, dataset: Dataset, device: torch.device, progress: bool):
        self.config, self.dataset, self.device = config, dataset, device
        self.bytes_before = records.restart_peak_memory(device)  # a student's networks, while its teacher trains
        self.batches = _check_sizes(config, dataset)
        pair = networks(config, dataset)
        for trained, network in zip((True, False), pair, strict=True):
            if isinstance(network, OwnNetwork):
                fisher = trained and config.fisher_samples > 0  # it is measured on what is trained alone
                network.rehearse(config.memory_format, config.precision, fisher)
        self.step = Step(config, *pair, device=device)
        self.recorder = Recorder(config, folder, dataset, self.step)
        self.progress = progress and self.recorder.writes
        self.probe = Probe(dataset, config.probe_batches * config.batch_size, self.test_batches, self.step.autocast)
        self.test_share = dataset
        if distributed.size() > 1:
            places = range(distributed.rank(), len(dataset.test), distributed.size())
            self.test_share = replace(dataset, test=dataset.test.take(places))

    def run(self, teacher: Run | None, from_start: bool = False) -> None:
        """Train to the end and record; goes on from a checkpoint unless `from_start`."""
        config, recorder = self.config, self.recorder
        if teacher:
            load_weights(self.step.teacher, teacher, self.dataset.num_classes)
        records.restart_peak_memory(self.device)  # the teacher's training, in the same process, does not count
        first = recorder.begin(teacher, from_start)
        history = recorder.history
        best = max((row["test_accuracy"] for row in history), default=-1.0)
        name = f"{config.student or config.teacher} {config.method}"
        bar = tqdm(total=config.epochs * self.batches, initial=first * self.batches, desc=name, unit="step",
                   disable=not self.progress, dynamic_ncols=True)  # fmt: skip
        with bar:
            for epoch in range(first, config.epochs):
                if _stop_early(config, history):
                    break
                row = self.epoch(epoch, bar)
                loss_is_finite = np.isfinite(row["train_loss"])
                if not (loss_is_finite and self.step.is_finite()):
                    what = "a weight" if loss_is_finite else "the loss"
                    if recorder.writes:
                        recorder.diverged(epoch + 1, what)
                    raise DivergedError(config.name, what, epoch + 1, config.command)
                history.append(row)
                best = max(best, row["test_accuracy"])
                bar.set_postfix_str(f"loss {row['train_loss']:.3g}, test {row['test_accuracy']:.2f} %")
                if recorder.writes:
                    recorder.checkpoint()
        peak = records.peak_memory_bytes(self.device) - self.bytes_before  # before what is measured at the end
        self._measure_at_the_end()
        if recorder.writes:
            recorder.finish(best, peak)

    def epoch(self, epoch: int, bar: tqdm) -> dict[str, float]:
        """Train one epoch, test and measure; returns the history's row."""
        config, step = self.config, self.step
        every = config.attention_steps if "attention_steps" in config.to_dict(relevant=True) else 0
        start, cpu_start = time.perf_counter(), time.process_time()
        # Train
        step.begin(epoch, self.batches)
        sums: dict[str, Tensor] = {}  # stay on the device until the epoch ends
        mismatch, seen = MeanMismatch(), 0
        with self._draws_of(epoch):
            for number, (x, y, _) in enumerate(self.train_batches(epoch)):
                measure = step.teacher is not None and (config.stm_batches == 0 or number < config.stm_batches)
                # instances of the batch, over all processes
                whole = min(config.batch_size, len(self.dataset.train) - number * config.batch_size)
                total = epoch * self.batches + number
                look = every > 0 and (total < FIRST_STEPS or total % every == 0)
                step.update(x, y, whole, sums=sums, mismatch=mismatch if measure else None, look=look)
                if look:
                    self.recorder.keep_step(total, step.looked)
                seen += whole
                bar.update()
        totals = distributed.total(torch.stack([value.double() for value in sums.values()])).tolist()
        means = {name: value / seen for name, value in zip(sums, totals, strict=True)}
        row = {
            "epoch": epoch + 1,
            "learning_rate": config.learning_rate_at(epoch + 0.5),
            "train_loss": means.pop("loss"),
            "train_accuracy": 100 * means.pop("correct"),
            **means,
            **{name: value.item() for name, value in step.gradients.items()},
            "train_seconds": time.perf_counter() - start,
            "train_cpu_seconds": time.process_time() - cpu_start,  # of all threads, whatever else the machine does
        }
        # Test
        start = time.perf_counter()
        row |= self._test()
        row |= {"inference_seconds": time.perf_counter() - start}
        # Measure
        if step.teacher is not None:
            row |= self._measure(mismatch)
        if config.fisher_samples and self.recorder.writes:
            self.recorder.keep(fisher=self._fisher())
        return row | {"test_seconds": time.perf_counter() - start}

    @contextmanager
    def _draws_of(self, epoch: int) -> Iterator[None]:
        """Make random draws inside depend on seed, epoch and process alone; afterwards they go on as before."""
        key = (self.config.seed, epoch, distributed.rank())
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))
            yield

    @torch.no_grad()
    def _test(self) -> dict[str, float]:
        """Loss and accuracy on the whole test split, of which every process takes its share."""
        model = self.step.model.eval()
        if self.config.batch_norm == "per_process":
            distributed.share_buffers(model)
        loss = correct = torch.zeros((), device=self.device)
        for x, y, _ in self.test_batches(self.test_share):
            with self.step.autocast():
                logits = exact(model(x))
            loss = loss + F.cross_entropy(logits, y, reduction="sum")
            correct = correct + (logits.argmax(-1) == y).sum()
        loss, correct = distributed.total(torch.stack([loss.double(), correct.double()])).tolist()
        images = len(self.dataset.test)
        return {"test_loss": loss / images, "test_accuracy": 100 * correct / images}

    def _measure(self, mismatch: MeanMismatch) -> dict[str, float]:
        """Keep CKA, attention, distances and mismatch of the epoch; returns the mismatch score (Eq. 1)."""
        config, step = self.config, self.step
        mean = {name: value.cpu() for name, value in mismatch.means().items()}
        if not self.recorder.writes:
            return {}
        probed = self.probe.epoch(step.model, step.teacher, step.calibration)
        weights = probed["attention"].cpu() if config.stm_weighted and "attention" in probed else None
        self.recorder.keep(**probed, **{f"mismatch_{name}": value for name, value in mean.items()})
        options = dict(pairs=config.stm_pairs, weights=weights, log_base=config.stm_log_base)
        return {"stm": stm_from_mismatch(mean[config.stm_distance], **options)}

    def _fisher(self) -> Tensor:
        """Temporal Fisher information (T,) on the first training images, as they are stored."""
        part = replace(self.dataset, test=self.dataset.train.take(range(self.config.fisher_samples)))
        traces = [fisher_trace(self.step.model, x, y) * len(y) for x, y, _ in self.test_batches(part)]
        return torch.stack(traces).sum(0) / len(part.test)

    @torch.no_grad()
    def _measure_at_the_end(self) -> None:
        """Measure the trained network: confusion, accuracy after each step, single images, energy."""
        model = self.step.model.eval()
        n, classes = len(self.dataset.test), self.dataset.num_classes
        confusion = correct = 0
        answers = torch.zeros(n, dtype=torch.int64, device=self.device)  # of all processes, by place in the split
        for x, y, places in self.test_batches(self.test_share):
            with self.step.autocast():
                predicted = model.logits_by_step(x).float().argmax(-1)  # (T, B)
                # the logits that the accuracy is counted on: in bf16, rounding can make the two differ
                predicted[-1] = model(x).argmax(-1)
            correct = correct + (predicted == y).sum(-1)
            confusion = confusion + torch.bincount(classes * y + predicted[-1], minlength=classes**2)
            answers[distributed.rank() + distributed.size() * places] = predicted[-1]
        confusion, correct, answers = map(distributed.total, (confusion, correct, answers))
        if not self.recorder.writes:
            return
        self.recorder.final = {
            "confusion": confusion.view(classes, classes).cpu().numpy(),
            "accuracy_by_step": (100 * correct / n).cpu().numpy(),
            "predicted": answers.to(torch.int16).cpu().numpy(),
            **self.probe.final(model, self.step.teacher),
        }
        part = replace(self.dataset, test=self.dataset.test.take(range(min(n, ENERGY_IMAGES))))
        try:
            layers = count_energy(model, (x for x, _, _ in self.test_batches(part))).layers
        except Exception as error:
            if not isinstance(model, OwnNetwork):
                raise
            self.recorder.log(f"operations are not counted: {error}")  # the run is sound
            layers = pd.DataFrame(columns=COLUMNS)
        records.write(self.recorder.folder / "energy.csv", layers.to_csv(index=False))

    def train_batches(self, epoch: int) -> Batches:
        """An epoch's batches, of which every process sees its share."""
        config = self.config
        options = dict(train=True, seed=config.seed, epoch=epoch, drop_last=config.partial_batch != "keep")
        options |= dict(reshuffle=config.reshuffle, rank=distributed.rank(), world_size=distributed.size())
        return self._batches(self.dataset, "train", **options)

    def test_batches(self, dataset: Dataset | None = None) -> Batches:
        """The test split as it is, of another dataset if given."""
        return self._batches(dataset or self.dataset, "test")

    def _batches(self, dataset: Dataset, split: str, **options: Any) -> Batches:
        """Batches on the device, in the memory layout of the networks."""
        for x, y, index in epoch_batches(dataset, split, self.config.batch_size, device=self.device, **options):
            yield x.contiguous(memory_format=self.step.layout) if x.dim() == 4 else x, y, index


def _check_sizes(config: RunConfig, dataset: Dataset) -> int:
    """Batches of an epoch, or a RunError where a batch or a measure is larger than the training split."""
    images, keep_last = len(dataset.train), config.partial_batch == "keep"
    batches = num_batches(dataset, "train", config.batch_size, drop_last=not keep_last)
    if batches == 0:
        raise RunError(
            f"batch_size={config.batch_size} of {config.name}: the training split has {images} "
            f"images; must be at most that, {_way_out(config, images)}"
        )
    if config.fisher_samples > images:
        raise RunError(f"fisher_samples={config.fisher_samples}: must be at most the {images} training images")
    distributed.micro_batch_size(images, config.batch_size, config.accumulate, keep_last)
    return batches


def _way_out(config: RunConfig, images: int) -> str:
    """What a user can do where the training split is smaller than a batch."""
    if config.method != "teacher":
        return "or partial_batch=keep"
    ways = ["for a teacher of all images, subset_teacher=full"] if config.train_fraction < 1 else []
    if images > 1:  # a teacher with settings of its own is a run of its own
        own = config.replace(batch_size=images, accumulate=1)
        ways.append(f"first train {shlex.join(own.arguments)}, then give the student teacher_run={own.name}")
    return "; or ".join(ways or ["get more images"])


def _stop_early(config: RunConfig, history: list[dict[str, float]]) -> bool:
    """Whether so many epochs as `early_stop` allows have passed without a better test accuracy."""
    accuracies = [row["test_accuracy"] for row in history]
    return config.early_stop > 0 and len(accuracies) - 1 - int(np.argmax(accuracies or [0])) >= config.early_stop
