"""Folders of data, their checksums, and the decoded copy that is kept on the disk."""

import functools
import hashlib
import json
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from tqdm.auto import tqdm

from sastc.files import sha256, user_cache

CACHE_FORMAT = 2  # since 2, images of 16 bits are scaled
HASHED_UP_TO = 1 << 30  # bytes; larger cache files are checked by size alone when they are opened
CACHE = "SASTC_CACHE"
SUMS = "SHA256SUMS"
MANIFEST = "manifest.json"


def hidden(name: str) -> bool:
    """Whether a file or folder is no data: its name begins with a dot, or is one that macOS or Synology give."""
    return name.startswith(".") or name in ("__MACOSX", "@eaDir")


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders in `folder`, sorted; none where it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not hidden(path.name))


def own_folders(root: Path, *names: str) -> list[Path]:
    """Return the folders of these names in `root`, there or not, each followed by the visible folders in it."""
    return [place for name in names for place in (root / name, *subfolders(root / name))]


def copy_folders(root: Path, name: str) -> list[Path]:
    """Return `root` and the folders in it of copies of a data set, such as ``cifar10-jpeg``."""
    return [root, *(folder for folder in subfolders(root) if folder.name.startswith((f"{name}-", f"{name}_")))]


def check_name(path: Path) -> None:
    """Raise a ValueError for a path that is not UTF-8: no record, page or log could name it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise ValueError(f"{shown}: its name is not UTF-8 (shown with \\x for such bytes); rename it") from None


def read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 text file, with or without a byte order mark; a ValueError names a file that is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        wrong = f"byte {error.start} is {error.object[error.start]:#04x}"
        raise ValueError(f"{path}: not UTF-8 text ({wrong}); save it as UTF-8") from error


def find_folder(name: str, places: Sequence[Path], holds: Callable[[Path], bool], expected: str, remedy: str) -> Path:
    """The first of `places` that `holds` the data, or the error of :func:`missing`."""
    return next((p for p in places if holds(p)), None) or missing(name, places, expected, remedy)


def missing(name: str, places: Sequence[Path], expected: str, remedy: str) -> NoReturn:
    """Raise the FileNotFoundError of a data set: where it was looked for, what was expected, how to get it."""
    looked = ", ".join(dict.fromkeys(str(place) for place in places))
    raise FileNotFoundError(
        f"{name}: no data found. Looked in: {looked}. Expected: {expected}. {remedy}. "
        "Another folder can be given as root=..., --data=... or in the environment variable SASTC_DATA."
    )


def array_digest(array: NDArray[Any]) -> str:
    """SHA-256 of the file that `numpy.save` makes of an array."""
    file = BytesIO()
    np.save(file, array)
    return hashlib.sha256(file.getbuffer()).hexdigest()


def list_digest(lines: Iterable[str]) -> str:
    """SHA-256 of lines of text, each with its end."""
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def checksums(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The checksums alone of {file: {"sha256": ..., ...}}."""
    return {name: entry["sha256"] for name, entry in entries.items()}


def file_digests(files: Sequence[Path], cache: Path, folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """Return {name: {sha256, bytes, mtime_ns}} of files, each checked against the SHA256SUMS beside it.

    With `folder`, SHA256SUMS lies there and names are paths from there, such as ``Train/0/00002.bin``. A file whose
    size and time are those in the manifest of `cache` is not read again: ImageNet's shards are 150 GB.

    Raises ValueError for a file that has not its checksum, a line of SHA256SUMS that is none, and a name that is not
    UTF-8; names the file.
    """
    for path in files:
        check_name(path)
    known, read_sums = _manifest(cache).get("source", {}), functools.cache(_sums)
    total, found = sum(path.stat().st_size for path in files), {}
    for path in tqdm(files, desc="checksums", unit="file", leave=False, disable=total < HASHED_UP_TO):
        base = folder or path.parent
        expected, name = read_sums(base / SUMS), path.relative_to(base).as_posix()
        stat = path.stat()
        entry = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        old = known.get(name, {})
        entry["sha256"] = old["sha256"] if entry.items() <= old.items() else sha256(path)
        if expected.get(name, entry["sha256"]) != entry["sha256"]:
            raise ValueError(
                f"{path}: damaged: its SHA-256 is {entry['sha256']}, {SUMS} beside it says {expected[name]}; "
                "get the file again"
            )
        found[name] = entry
    return found


def _sums(path: Path) -> dict[str, str]:
    lines, sums = read_lines(path) if path.is_file() else [], {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        match = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)", line.rstrip())
        if match is None:
            raise ValueError(f"{path}, line {number}: must read '<64 hexadecimal digits>  <file name>', got {line!r}")
        if sums.setdefault(match[2], match[1].lower()) != match[1].lower():
            raise ValueError(f"{path}, line {number}: another checksum of {match[2]} stands above it")
    return sums


def decoded_copy(
    name: str, data: Path, files: Sequence[Path], build: Callable[[Path], None], folder: Path | None = None
) -> tuple[Path, dict[str, str], dict[str, str]]:
    """Keep what `build` makes of `files` in the cache: its place, the files' checksums, and those of the copy's files.

    The place is in $SASTC_CACHE, else in the user's cache folder, where it is neither committed nor shared along with
    the data. Its name carries a hash of `data`, the data's folder, so that two copies of a data set do not replace
    each other. `folder` is that of :func:`file_digests`, the rest is in :func:`cached`.
    """
    try:
        base = user_cache()
    except RuntimeError as error:
        raise OSError(f"no cache folder: {error}; set {CACHE} to a folder with room that may be written") from error
    place = base / f"{name}-{hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:12]}"
    source = file_digests(files, place, folder)
    return place, checksums(source), checksums(cached(place, source, build)["files"])


def cached(folder: Path, source: Mapping[str, Any], build: Callable[[Path], None]) -> dict[str, Any]:
    """Make sure that `folder` holds what `build` makes from `source`, and return its manifest.

    `source` is {file: {"sha256": ..., ...}}. A copy made from other checksums, or damaged, is made again, with a
    warning. `build` writes files into the folder that it is given, which is renamed when complete: `folder` is there
    whole or not at all. Unless the place was chosen in SASTC_CACHE, a new copy says on stderr where it is, how large,
    and how to clear it.

    Raises OSError if it cannot be written, or what `build` reads cannot be read, and says how to choose another place;
    what else `build` raises goes through.
    """
    if _fault(folder, source) is None:
        return _manifest(folder)
    aside = folder.with_name(folder.name + ".partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(folder.name + ".lock")):
            fault = _fault(folder, source)  # another process may have built it meanwhile
            if fault is None:
                return _manifest(folder)
            if folder.exists():
                warnings.warn(f"{folder}: {fault}; the decoded copy is made again", stacklevel=4)
            shutil.rmtree(aside, ignore_errors=True)  # what a killed process left
            try:
                aside.mkdir()
                build(aside)
                _seal(aside, source)
                shutil.rmtree(folder, ignore_errors=True)
                aside.rename(folder)
                _announce(folder)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
            return _manifest(folder)
    except OSError as error:
        raise OSError(
            f"{folder}: cannot write the decoded copy of the data ({error}); "
            f"set {CACHE} to a folder with room that may be written"
        ) from error


def _announce(folder: Path) -> None:
    if not os.environ.get(CACHE):
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        clear = f"delete that folder to clear it, {CACHE} names another place"
        tqdm.write(f"decoded copy of the data: {size:.0f} MB in {folder}; {clear}", file=sys.stderr)


def _seal(folder: Path, source: Mapping[str, Any]) -> None:
    """Write the manifest of the files in `folder`, and all of them through to the disk."""
    paths = sorted(folder.iterdir())
    files = {path.name: {"sha256": sha256(path), "bytes": path.stat().st_size} for path in paths}
    manifest = {"format": CACHE_FORMAT, "source": dict(source), "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in (*paths, folder / MANIFEST):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest in `folder`; empty if there is none or it is not one of ours."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        entries = [*manifest["source"].values(), *manifest["files"].values()]
        sound = manifest["format"] == CACHE_FORMAT and all({"sha256", "bytes"} <= set(entry) for entry in entries)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return manifest if sound else {}


def _fault(folder: Path, source: Mapping[str, Any]) -> str | None:
    """Say what is wrong with the copy in `folder`; None if nothing is."""
    manifest = _manifest(folder)
    if not manifest:
        return "no readable manifest of this format"
    if checksums(manifest["source"]) != checksums(source):
        return "stale: the files it was made from have changed"
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            return f"{name} is missing or has another size"
        if entry["bytes"] <= HASHED_UP_TO and sha256(path) != entry["sha256"]:
            return f"{name} is damaged"
    return None
