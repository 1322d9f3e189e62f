"""One folder a run: what was asked for, what ran, and what came out.

====================  ==================================================================================
``config.json``       every field of the :class:`~sastc.config.RunConfig`
``provenance.json``   commit, versions, hardware, times, command, data and teacher hashes
``history.csv``       one row an epoch
``measures.npz``      arrays by layer, time step and epoch (no pickle), see :data:`MEASURES`
``energy.csv``        multiplications, synaptic operations and firing rate of every layer
``indices.npz``       training images and noisy labels used, where the run has a subset or label noise
``metrics.json``      final numbers; written last, so a run with this file is complete
``log.txt``           the same for human eyes
``weights.pt``        weights after the last epoch (not in git)
``checkpoint*.pt``    the two latest epochs of a run that is not complete, headed by their SHA-256 (not in git)
``again``             folder of the same files, where a recorded run is made again (not in git)
====================  ==================================================================================
"""

import contextlib
import dataclasses
import datetime
import gc
import hashlib
import io
import json
import os
import platform
import re
import resource
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sastc.config import ConfigError, RunConfig

AGAIN = "again"  # folder in a recorded run's, where it is made again

MEASURES = {
    "student_layers": "(S,) names of the student layers",
    "teacher_layers": "(A,) names of the teacher layers",
    "mismatch_mse": "(E, T, S, A) mean squared difference of similarity matrices, training batches (Eq. 1)",
    "mismatch_euclidean": "(E, T, S, A) the same as a Frobenius norm",
    "attention": "(E, T, S, A) mean η over the probe images, in evaluation mode (Eq. 5)",
    "attention_class": "(E, N, T, S, A) mean η over the probe images of each class",
    "attention_instance": "(E, P, T, S, A) η of the first P probe images",
    "distance": "(E, T, S, A) mean unweighted distance over the probe images (Eq. 6)",
    "cka": "(E, T, S, A) linear CKA of the layers (unbiased) on the probe images",
    "fisher": "(E, T) trace of the Fisher information after each number of steps, if fisher_samples is set",
    "confusion": "(N, N) test images by true class (rows) and predicted class, after the last epoch",
    "accuracy_by_step": "(T,) test accuracy in percent of the logits after 1, 2, ... T steps",
    "class_names": "(N,) names of the classes",
    "instance_index": "(P,) places of the first P probe images in the test split",
    "instance_label": "(P,) their classes",
    "instance_image": "(P, C, H, W) the images themselves, or (P, T, C, H, W) frames, uint8",
    "instance_logits": "(P, T, N) their logits after 1, 2, ... T steps",
    "sam_<layer>": "(P, T, H, W) their spike activation maps at a student layer",
    "cam": "(P, H, W) their class activation maps (teacher runs)",
    "similarity_student": "(T, S, M, M) similarity matrices (Eq. 3) of the first M probe images",
    "similarity_teacher": "(A, M, M) the same of the teacher layers; (T, A, M, M) if it sees each frame",
    "similarity_label": "(M,) classes of those images",
}


class RunError(RuntimeError):
    """A run that cannot start or go on; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A recorded run: the files of one folder, read when asked for."""

    path: Path

    def __post_init__(self):
        object.__setattr__(self, "path", Path(self.path))

    @property
    def name(self) -> str:
        """Folder name."""
        return self.path.name

    @property
    def complete(self) -> bool:
        """Whether the run has finished."""
        return (self.path / "metrics.json").is_file()

    @property
    def config(self) -> RunConfig:
        """The run's configuration."""
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in self._json("config.json").items()}
        if values.get("variant") == "released":  # records older than this field: one order for the teacher, too
            values.setdefault("teacher_reshuffle", False)
        try:
            return RunConfig.from_dict(values)
        except ConfigError as error:
            raise RunError(f"{self.path / 'config.json'} is not of this version of sastc: {error}") from None

    @property
    def command(self) -> str:
        """Command that makes this run where it is."""
        config, root = self.config, self.path.parent.parent
        elsewhere = self.path.parent.name == config.scale and root != Path("results")
        where = ["--results", str(root)] if elsewhere else []
        return shlex.join(["python", "-m", "sastc", *where, "train", *config.arguments])

    @property
    def provenance(self) -> dict[str, Any]:
        """Commit, versions, hardware, times, command, hashes."""
        return self._json("provenance.json")

    @property
    def metrics(self) -> dict[str, Any]:
        """Final numbers; ``accuracy`` is the headline, in percent."""
        return self._json("metrics.json")

    @property
    def history(self) -> pd.DataFrame:
        """One row an epoch, so far."""
        with _undamaged(self.path / "history.csv") as path:
            return pd.read_csv(path)

    @property
    def measures(self) -> dict[str, np.ndarray]:
        """Arrays by name, see :data:`MEASURES`."""
        with _undamaged(self.path / "measures.npz") as path, np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)

    @property
    def weights(self) -> Path:
        """Path of ``weights.pt``, which is compared with the recorded hash.

        Raises
        ------
        RunError
            There is none, or it holds other weights than the recorded ones.
        """
        path, command = self.path / "weights.pt", self.command
        if not self.complete:
            raise RunError(f"{self.path} is not finished: {command} goes on with it")
        make = f"{command} --force"
        if not path.exists():
            raise RunError(f"{self.path} has no weights.pt: weights are not kept in git; make them with {make}")
        found, recorded = sha256(path), self.metrics["weights_sha256"]
        if found != recorded:
            raise RunError(
                f"{path} is damaged or of another run: its SHA-256 is {found[:10]}..., recorded is {recorded[:10]}...: "
                f"delete it, and make it again with {make}"
            )
        return path

    def _json(self, name: str) -> dict[str, Any]:
        with _undamaged(self.path / name) as path:
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except FileNotFoundError:
                raise RunError(f"{self.path} holds no {name}: not a recorded run, or not finished") from None
            if not content or not isinstance(content, dict):
                raise ValueError("no filled JSON object")
            return content


@contextlib.contextmanager
def _undamaged(path: Path) -> Iterator[Path]:
    """Turn what a reader says of a damaged file into a RunError that names it."""
    try:
        yield path
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        again = f"delete {path.parent}, and make the run again"
        if path.name != "config.json":
            with contextlib.suppress(RunError):
                again = f"make the run again with {Run(path.parent).command} --force"
        raise RunError(f"{path} is damaged: {again} ({error})") from None


def run_path(config: RunConfig, results: str | Path) -> Path:
    """Folder of a run."""
    return Path(results) / config.scale / config.name


def list_runs(results: str | Path = "results") -> list[Run]:
    """All runs below a folder, by path."""
    return [Run(p.parent) for p in sorted(Path(results).rglob("config.json")) if p.parent.name != AGAIN]


def find_run(name: str, results: str | Path = "results") -> Run:
    """A run by folder, by name, or by a part of its name that no other run has."""
    if (Path(name) / "config.json").is_file():
        return Run(Path(name))
    runs = list_runs(results)
    found = [r for r in runs if r.name == name] or [r for r in runs if name in r.name]
    if len(found) == 1:
        return found[0]
    what = "more than one run matches: " + ", ".join(r.name for r in found[:5]) if found else "no such run"
    raise RunError(f"{name!r} below {results}: {what}")


def write(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all.

    Raises
    ------
    RunError
        When the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise RunError(f"cannot write {path}: {error.strerror}; what was recorded before is kept") from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dictionary as readable JSON."""
    write(path, json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as a compressed npz without pickles; floating-point arrays as float32."""
    small = {n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in arrays.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **small)
    write(path, buffer.getvalue())


def sha256(path: Path) -> str:
    """Hash of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write ``checkpoint.pt``, headed by its hash; the one before becomes ``checkpoint.previous.pt``."""
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    latest = folder / "checkpoint.pt"
    if latest.exists():
        os.replace(latest, folder / "checkpoint.previous.pt")
    write(latest, hashlib.sha256(content).digest() + content)


def load_checkpoint(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The latest undamaged checkpoint, and what was noticed on the way."""
    import torch

    notes = []
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        try:
            content = (folder / name).read_bytes()
        except FileNotFoundError:
            continue
        digest, content = content[:32], content[32:]
        if hashlib.sha256(content).digest() == digest:
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), notes
        notes.append(f"{name} is damaged: not used")
    return None, notes


def remove_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a run that is complete."""
    for path in folder.glob("checkpoint*"):
        path.unlink()


def take_over(folder: Path) -> None:
    """Put a run that was made again in the place of the recorded one, once it is complete.

    Killed in the middle it leaves a run that is not complete, and the next call goes on. No mixture is ever complete.
    """
    again = folder / AGAIN
    if not (again / "metrics.json").exists():
        return
    (folder / "metrics.json").unlink(missing_ok=True)
    for path in sorted(again.iterdir(), key=lambda path: path.name == "metrics.json"):  # which comes last
        os.replace(path, folder / path.name)
    again.rmdir()


def provenance(command: str, device: Any, threads: int) -> dict[str, Any]:
    """Where and with what a run is made."""
    import torch

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None

    status = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude,top)results")  # of the code
    packages = ("torch", "torchvision", "numpy", "scikit-learn", "pandas")
    return {
        "commit": git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "command": command,
        "started": now(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages} | {"sastc": version("sastc")},
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "device_type": device.type,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "threads": threads,
    }


def restart_peak_memory(device: Any) -> int:
    """Count a GPU's peak memory from now on, freed of what nobody reaches; returns the bytes in use, 0 on the CPU."""
    if device.type != "cuda":
        return 0
    import torch

    gc.collect()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def peak_memory_bytes(device: Any) -> int:
    """Most memory so far: on a GPU that of torch's tensors there, on the CPU the resident set of the whole process."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, Linux KiB


def now() -> str:
    """Time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _cpu_name() -> str:
    name = platform.processor() or platform.machine()
    if sys.platform == "linux" and (found := re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())):
        name = found[1]
    return f"{name}, {os.cpu_count()} logical cores"
