"""One folder a run: what was asked for, what ran, and what came out.

====================  ==================================================================================
``config.json``       all fields of the :class:`~sastc.config.RunConfig`
``provenance.json``   commit, versions, hardware, times, command, data and teacher hashes
``history.csv``       one row an epoch
``measures.npz``      arrays by layer, time step and epoch (no pickle), see :data:`MEASURES`
``energy.csv``        multiplications, synaptic operations and firing rate of every layer
``indices.npz``       training images and noisy labels used, where the run has a subset or label noise
``log.txt``           the history in words, with starts and interruptions
``SHA256SUMS``        hashes of all these and of the next, which every reader compares; also for ``sha256sum -c``
``metrics.json``      final numbers; written last, so a run with this file is complete
``weights.pt``        weights after the last epoch (in git only for some teachers)
``checkpoint*.pt``    the two latest epochs of a run that is not complete, headed by their SHA-256 (not in git)
``again``             folder of the same files while a recorded run is made again (not in git)
====================  ==================================================================================
"""

import base64
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
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, PackagePath, distributions, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sastc import methods
from sastc.config import ConfigError, RunConfig
from sastc.files import sha256, user_path
from sastc.references import Own

AGAIN = "again"  # inside a recorded run's folder, where the run is made again
SUMS = "SHA256SUMS"
DIVERGED = "diverged.json"  # of a run that ended without a result, see `Run.diverged`

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
    "step_number": "(K,) training steps, counted from zero, at which the next arrays were taken (attention_steps)",
    "step_attention": "(K, T, S, A) mean η over the step's batch, in training mode",
    "step_distance": "(K, T, S, A) mean unweighted distance over the same",
    "step_easiest": "(K, T, S) share of its instances whose largest η is on the teacher layer with the least distance",
    "step_gradient": "(K, 4) norms of the student's gradient of the KD loss and of β times the feature loss, norm of "
    "the latter's on projectors and attention, cosine of the first two",
    "predicted": "(M,) class predicted for each test image after the last epoch",
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


class DivergedError(RunError):
    """A run whose loss or weights are no longer finite; that is its recorded result."""

    def __init__(self, name: str, what: str, epoch: int, command: str):
        self._given = name, what, epoch, command
        way = f"try a smaller learning_rate or weight of its loss; only {command} --force runs it again"
        super().__init__(f"{name} diverged: {what} is not finite in epoch {epoch}: {way}")

    def __reduce__(self):  # one process of several sends it to the others
        return type(self), self._given


@dataclasses.dataclass(frozen=True)
class Run:
    """A recorded run: the files of one folder, read when asked for."""

    path: Path

    def __post_init__(self):
        object.__setattr__(self, "path", user_path(self.path))

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
        values = self._json("config.json")
        if values.get("variant") == "released":  # records older than this field: one order for the teacher, too
            values.setdefault("teacher_reshuffle", False)
        try:
            if described := values.pop("own_method", None):
                values["method_class"] = methods.from_description(described)
            networks = values.pop("own_networks", {})
            values["networks"] = {role: Own(values[role], reference) for role, reference in networks.items()}
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
    def diverged(self) -> dict[str, Any] | None:
        """Of a run that ended without a result the `epoch`, and `what` was not finite: "the loss" or "a weight"."""
        return self._json(DIVERGED) if not self.complete and self.has(DIVERGED) else None

    @property
    def ended(self) -> bool:
        """Whether the run has a result, be it that it has diverged."""
        return self.complete or self.has(DIVERGED)

    @property
    def history(self) -> pd.DataFrame:
        """One row an epoch, so far."""
        with _undamaged(self.path / "history.csv") as path:
            return pd.read_csv(io.BytesIO(self.read(path.name)))

    @property
    def measures(self) -> dict[str, np.ndarray]:
        """Arrays by name, see :data:`MEASURES`."""
        return self._arrays("measures.npz")

    @property
    def indices(self) -> dict[str, np.ndarray]:
        """Training images and noisy labels used, where the run has a subset or label noise."""
        return self._arrays("indices.npz")

    @property
    def energy(self) -> pd.DataFrame:
        """Operations and firing rate of every layer."""
        with _undamaged(self.path / "energy.csv") as path:
            return pd.read_csv(io.BytesIO(self.read(path.name)))

    def has(self, name: str) -> bool:
        """Whether the run has such a file, or should have, since its hash is recorded."""
        return (self.path / name).is_file() or (self.complete and name in (self.sums or {}))

    def read(self, name: str) -> bytes:
        """Content of one of the run's files, compared with its recorded hash once the run is complete.

        A run without hashes, recorded by an earlier version, is read as it is. Raises RunError where the file is
        missing, or holds other bytes than the recorded ones.
        """
        with _undamaged(self.path / name) as path:
            try:
                content = path.read_bytes()
            except OSError as error:
                there = f"{name}: not a recorded run, or not finished" if not self.complete else f"{name} any more"
                reason = there if isinstance(error, FileNotFoundError) else f"readable {name} ({error.strerror})"
                raise RunError(f"{self.path} holds no {reason}") from None
            if self.complete and (sums := self.sums) is not None:
                if name not in sums:
                    raise ValueError(f"{SUMS} does not list it")
                if (found := hashlib.sha256(content).hexdigest()) != sums[name]:
                    raise ValueError(f"its SHA-256 is {found[:10]}..., recorded is {sums[name][:10]}...")
            return content

    @property
    def sums(self) -> dict[str, str] | None:
        """The recorded SHA-256 of every file by name; ``None`` for a run of an earlier version, which has none."""
        with _undamaged(self.path / SUMS) as path:
            try:
                text = path.read_bytes().decode("ascii")
            except FileNotFoundError:
                return None
            if not re.fullmatch(r"([0-9a-f]{64}  [\w.]+\n)+", text):
                raise ValueError("not lines of <64 hexadecimal digits>  <file name>")
            return {line[66:]: line[:64] for line in text.splitlines()}

    @property
    def weights(self) -> Path:
        """Path of ``weights.pt``; a RunError where it is missing, or holds other weights than the recorded ones."""
        path, make = self.path / "weights.pt", f"{self.command} --force"
        if not self.complete:
            raise RunError(f"{self.path} is not finished: {self.command} goes on with it")
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
        with _undamaged(self.path / name):
            content = json.loads(self.read(name).decode("utf-8"))
            if not content or not isinstance(content, dict):
                raise ValueError("no filled JSON object")
            return content

    def _arrays(self, name: str) -> dict[str, np.ndarray]:
        with _undamaged(self.path / name), np.load(io.BytesIO(self.read(name)), allow_pickle=False) as arrays:
            return dict(arrays)


@contextlib.contextmanager
def _undamaged(path: Path) -> Iterator[Path]:
    """Turn what a reader says of a damaged file into a RunError that names it."""
    try:
        yield path
    except RunError:
        raise
    except Exception as error:  # damaged bytes make readers raise anything
        again = f"delete {path.parent}, and make the run again"
        if path.name not in ("config.json", SUMS):  # whose command is readable
            with contextlib.suppress(RunError):
                again = f"make the run again with {Run(path.parent).command} --force"
        raise RunError(f"{path} is damaged: {again} ({error})") from None


def write_config(folder: Path, config: RunConfig) -> None:
    """Write ``config.json``; it describes what is not the library's, to be readable without the files of these."""
    kind = config.method_class
    own: dict[str, Any] = {"own_method": methods.described(kind)} if kind is not None and kind.reference else {}
    if config.networks:
        own["own_networks"] = {role: network.reference for role, network in config.networks.items()}
    write_json(folder / "config.json", config.to_dict() | own)


def run_path(config: RunConfig, results: str | Path) -> Path:
    """Folder of a run."""
    return user_path(results) / config.scale / config.name


def list_runs(results: str | Path = "results") -> list[Run]:
    """All runs below a folder, sorted by path, also those that have lost their ``config.json``."""
    marks = {"config.json", SUMS}
    folders = (Path(folder) for folder, _, files in os.walk(user_path(results)) if marks & set(files))
    return [Run(folder) for folder in sorted(folders) if folder.name != AGAIN]


def find_run(name: str, results: str | Path = "results") -> Run:
    """A run by folder, by name, or by a part of its name that no other run has."""
    if (user_path(name) / "config.json").is_file():
        return Run(Path(name))
    runs = list_runs(results)
    found = [r for r in runs if r.name == name] or [r for r in runs if name in r.name]
    if len(found) == 1:
        return found[0]
    what = "more than one run matches: " + ", ".join(r.name for r in found[:5]) if found else "no such run"
    raise RunError(f"{name!r} below {results}: {what}")


def write(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all; a RunError where the folder cannot be written or the disk is full."""
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


def json_bytes(content: dict[str, Any]) -> bytes:
    """A dictionary as readable JSON."""
    return (json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n").encode()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dictionary as readable JSON."""
    write(path, json_bytes(content))


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as a compressed npz without pickles; floating-point arrays as float32."""
    small: dict[str, Any] = {n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in arrays.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **small)
    write(path, buffer.getvalue())


def seal(folder: Path, last: str = "", content: bytes = b"") -> None:
    """Write ``SHA256SUMS`` of a run's files, and then `last`, the file that makes it complete, with `content`.

    Weights, which are not kept in git, have their hash in ``metrics.json``.
    """
    sums = {path.name: sha256(path) for path in folder.iterdir() if is_recorded(path)}
    if last:
        sums[last] = hashlib.sha256(content).hexdigest()
    write(folder / SUMS, "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))
    if last:
        write(folder / last, content)


def is_recorded(path: Path) -> bool:
    """Whether ``SHA256SUMS`` holds the hash of a path in a run's folder."""
    return path.is_file() and not path.name.startswith((".", SUMS)) and path.suffix != ".pt"


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
    """The latest undamaged checkpoint, and a note of each that is damaged."""
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

    If the process is killed here, the folder has no ``metrics.json``, so it is not complete; the next call goes on.
    """
    again = folder / AGAIN
    if not (again / "metrics.json").exists():
        return
    (folder / "metrics.json").unlink(missing_ok=True)
    for path in sorted(again.iterdir(), key=lambda path: path.name == "metrics.json"):  # which comes last
        os.replace(path, folder / path.name)
    again.rmdir()


def code_version(package: Path = Path(__file__).parent) -> tuple[str | None, bool | None]:
    """Commit of the code that runs, and whether it is changed; None for what is not known.

    A repository counts only if it tracks the package's own files, whatever git's environment variables say: an
    installed or unzipped package may lie inside another repository. Of an installed package, pip's metadata are asked.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(package), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    if git("ls-files", "--error-unmatch", "--", "__init__.py") is None:
        return _installed_version(package)
    tracked = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude,top)results")
    sources = (".", ":(top,glob)**/*.py", ":(exclude,top)results")  # new files of the package, and what it may import
    new = git("ls-files", "--others", "--exclude-standard", "--full-name", "--", *sources)
    unknown = tracked is None or new is None
    return git("rev-parse", "HEAD"), None if unknown else bool(tracked or new)


def _installed_version(package: Path) -> tuple[str | None, bool | None]:
    """The same of a package that pip has installed from git; its files are compared with pip's hashes of them."""
    for found in distributions(name="sastc"):
        if Path(str(found.locate_file("sastc"))).resolve() != package.resolve():
            continue  # another copy's metadata
        with contextlib.suppress(ValueError, KeyError, TypeError):
            commit = json.loads(found.read_text("direct_url.json") or "{}")["vcs_info"]["commit_id"]
            files = [file for file in found.files or () if file.hash and file.parts[0] == "sastc"]
            return commit, not files or any(_changed(file) for file in files)
    return None, None


def _changed(file: PackagePath) -> bool:
    """Whether a file has changed since it was installed."""
    try:
        digest = hashlib.new(file.hash.mode, file.read_binary()).digest()
    except OSError:
        return True
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value


def provenance(command: str, device: Any, threads: int) -> dict[str, Any]:
    """Where and with what a run is made."""
    import torch

    commit, dirty = code_version()
    packages = ("torch", "torchvision", "numpy", "scikit-learn", "pandas", "sastc")
    versions: dict[str, str | None] = dict.fromkeys(packages)
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):  # a checkout that is on the path alone
            versions[name] = version(name)
    return {
        "commit": commit,
        "dirty": dirty,
        "command": command,
        "started": now(),
        "python": platform.python_version(),
        "versions": versions,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "device_type": device.type,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "threads": threads,
    }


def restart_peak_memory(device: Any) -> int:
    """Free unreachable tensors and restart the count of a GPU's peak memory; returns the bytes in use, 0 on the CPU."""
    if device.type != "cuda":
        return 0
    import torch

    gc.collect()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def peak_memory_bytes(device: Any) -> int:
    """Peak memory: on a GPU that of torch's tensors there, on the CPU the resident set of the whole process."""
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
