"""Paths as users give them, the user's cache folder, and hashes of files."""

import hashlib
import os
from pathlib import Path


def user_path(path: str | Path) -> Path:
    """A path as a user gives it, ``~`` being their home."""
    return Path(os.path.expanduser(path))


def user_cache() -> Path:
    """Where what can be made again is kept: $SASTC_CACHE, else the user's cache folder.

    Raises RuntimeError where a home folder is meant and there is none.
    """
    from platformdirs import user_cache_path

    return Path(os.environ.get("SASTC_CACHE") or user_cache_path("sastc", appauthor=False)).expanduser()


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
