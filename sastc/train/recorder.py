"""The files of a training: readable records after each epoch, and checkpoints from which it goes on."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from sastc import distributed, methods, records
from sastc.config import RunConfig
from sastc.data import Dataset
from sastc.data.identity import differences, facts
from sastc.files import sha256
from sastc.records import Run, RunError
from sastc.train.step import Step

STATES = ("model", "calibration", "optimizer")  # of a step, in checkpoints


class Recorder:
    """The files of one training; only the first of several processes writes."""

    def __init__(self, config: RunConfig, folder: Path, dataset: Dataset, step: Step):
        self.config, self.folder, self.dataset, self.step = config, folder, dataset, step
        self.writes = distributed.rank() == 0
        self.history: list[dict[str, float]] = []  # one row an epoch
        self.measures: dict[str, list[Tensor]] = {}  # one array an epoch
        self.steps: dict[str, list[Tensor]] = {}  # one array for each of the steps that attention_steps chooses
        self.final: dict[str, np.ndarray] = {}  # measured once, at the end

    def check_begun(self, what: str, now: dict[str, Any]) -> None:
        """Raise a RunError unless the epochs of a checkpoint were made with this `what`, "data" or "teacher"."""
        if not any(self.folder.glob("checkpoint*.pt")) or not (begun := self._begun()):
            return
        was = begun.get(what, {})
        if what == "data":
            other = differences(was, now)
        else:
            other = [name for name in was | now if was.get(name) != now.get(name)]
        if other:
            before, after = (found.get("name", found.get("run")) for found in (was, now))
            raise RunError(
                f"{self.config.name} was begun with {what} {before}, not the {what} {after} of now "
                f"(other {', '.join(other)}): go on with the former, or start again with force"
            )

    def begin(self, teacher: Run | None, from_start: bool) -> int:
        """Load the latest undamaged checkpoint unless `from_start`, and record what is about to be run.

        Returns the number of epochs done. Raises a RunError where they were made with another teacher.
        """
        if from_start and self.writes:
            records.remove_checkpoints(self.folder)
        first = self._resume(teacher)
        if self.writes:
            self._write_beginning(teacher, first)
        return first

    def _resume(self, teacher: Run | None) -> int:
        state, notes = distributed.once(lambda: records.load_checkpoint(self.folder))
        for note in notes:
            self.log(note)
        if state is None:
            return 0
        distributed.once(lambda: self.check_begun("teacher", _facts_of(teacher) if teacher else {}))
        self._take_threads()
        for name in STATES:
            getattr(self.step, name).load_state_dict(state[name])
        self.history, self.measures, self.steps = state["history"], state["measures"], state.get("steps", {})
        return len(self.history)

    def _take_threads(self) -> None:
        """Go on with the number of threads of the epochs before: it decides the last bits on the CPU."""
        was = distributed.once(self._begun)
        threads = was.get("threads", 0) if self.step.device.type == was.get("device_type") == "cpu" else 0
        if threads and threads != (now := torch.get_num_threads()):
            torch.set_num_threads(threads)
            self.log(f"begun with {threads} threads: goes on with as many, not with {now}")

    def _begun(self) -> dict[str, Any]:
        """The provenance of the epochs before, empty where there is none."""
        return Run(self.folder).provenance if (self.folder / "provenance.json").exists() else {}

    def _write_beginning(self, teacher: Run | None, first: int) -> None:
        """Record what is about to be run, from which epoch."""
        config, folder = self.config, self.folder
        (folder / records.DIVERGED).unlink(missing_ok=True)  # it is tried again
        records.write_config(folder, config)
        provenance = records.provenance(config.command, self.step.device, torch.get_num_threads())
        provenance["processes"] = distributed.size()
        provenance["data"] = facts(self.dataset)
        if own := methods.facts(config.method_class):
            provenance["method"] = own
        if config.networks:
            provenance["networks"] = {role: network.facts for role, network in config.networks.items()}
        if teacher:
            provenance["teacher"] = _facts_of(teacher)
        provenance["resumed_at_epoch"] = first or None
        provenance["compiler"] = self.step.compiler
        if first and (was := self._begun()):
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
        self.log(f"{provenance['started']} {begun}{where}: {config.command}")

    def keep(self, **arrays: Tensor) -> None:
        """Keep arrays of one epoch by name."""
        for name, array in arrays.items():
            self.measures.setdefault(name, []).append(array.cpu())

    def keep_step(self, number: int, arrays: dict[str, Tensor]) -> None:
        """Keep arrays of one training step, counted from zero."""
        for name, array in (arrays | {"number": torch.tensor(number)}).items():
            if self.writes:
                self.steps.setdefault(f"step_{name}", []).append(array.cpu())

    def checkpoint(self) -> None:
        """Record the epoch: readable files first, then the checkpoint that a resumed run starts from."""
        self.write_records()
        state: dict[str, Any] = {name: getattr(self.step, name).state_dict() for name in STATES}
        state |= dict(history=self.history, measures=self.measures, steps=self.steps)
        records.save_checkpoint(self.folder, state)
        self.log("  ".join(f"{name} {value:.6g}" for name, value in self.history[-1].items()))

    def write_records(self) -> None:
        """Write the history and the measures so far."""
        records.write(self.folder / "history.csv", pd.DataFrame(self.history).to_csv(index=False))
        lists = self.measures | self.steps
        arrays = {name: torch.stack(values).numpy() for name, values in lists.items()} | self.final
        if self.step.teacher is not None:
            arrays["student_layers"] = np.array(self.step.model.tap_names)
            arrays["teacher_layers"] = np.array(self.step.teacher.tap_names)
        if arrays:
            records.write_arrays(self.folder / "measures.npz", arrays)

    def finish(self, best: float, peak: int) -> None:
        """Write weights, final numbers and all hashes; `best` is an accuracy in percent, `peak` a number of bytes."""
        history = pd.DataFrame(self.history)
        last = self.history[-1]["test_accuracy"]
        seconds = history.reindex(columns=["train_seconds", "inference_seconds", "test_seconds"]).mean().to_dict()
        self.write_records()
        buffer = io.BytesIO()
        weights = self.step.model.state_dict()  # a file for every machine, and the same bytes from every device
        weights.update({name: weight.cpu() for name, weight in weights.items() if isinstance(weight, Tensor)})
        torch.save(weights, buffer)
        records.write(self.folder / "weights.pt", buffer.getvalue())
        metrics = {
            "accuracy": last if self.config.headline == "last" else best,
            "last_accuracy": last,
            "best_accuracy": best,
            "best_epoch": 1 + int(history.test_accuracy.argmax()),
            "epochs": len(history),
            "parameters": sum(p.numel() for p in self.step.model.parameters()),
            "train_seconds_per_epoch": seconds["train_seconds"],
            "inference_seconds": seconds["inference_seconds"],
            "test_seconds": seconds["test_seconds"],
            "peak_memory_bytes": peak,
            "weights_sha256": sha256(self.folder / "weights.pt"),
            "finished": records.now(),
        }
        if "stm" in history:  # the paper averages the last ten epochs
            metrics["stm"] = float(np.mean([row["stm"] for row in self.history[-10:]]))
        self.log(f"{metrics['finished']} finished: accuracy {metrics['accuracy']:.2f} %")
        records.seal(self.folder, "metrics.json", records.json_bytes(metrics))
        records.remove_checkpoints(self.folder)

    def diverged(self, epoch: int, what: str) -> None:
        """Record that `what`, "the loss" or "a weight", was not finite in an epoch: in a search that is a result."""
        self.log(f"{records.now()} {what} is not finite in epoch {epoch}")
        records.write_json(self.folder / records.DIVERGED, dict(epoch=epoch, what=what, at=records.now()))

    def log(self, line: str) -> None:
        """Add a line to ``log.txt``."""
        if not self.writes:
            return
        try:
            with open(self.folder / "log.txt", "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise RunError(f"cannot write {self.folder / 'log.txt'}: {error.strerror}") from error


def _facts_of(teacher: Run) -> dict[str, Any]:
    """What a student's record says of its teacher."""
    metrics = teacher.metrics
    return dict(run=teacher.name, weights_sha256=metrics["weights_sha256"], accuracy=metrics["accuracy"])


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
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
        # A folder in which nothing was recorded is removed. The lock file must go while it is still held: another
        # process may open it as soon as it is free, and filelock does not take a lock on a deleted file.
        with contextlib.suppress(OSError):  # another process has just opened it
            if os.listdir(folder) == [".lock"]:
                (folder / ".lock").unlink()
                folder.rmdir()
        lock.release()
