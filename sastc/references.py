"""Code that a user brings as ``file.py:name``: methods and networks of their own. No torch."""

import dataclasses
import functools
import hashlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from sastc.checks import ConfigError, shown, suggestion
from sastc.files import sha256, user_path

_REFERENCE = re.compile(r"(?P<file>.+\.py):(?P<name>\w+)")
NAME = re.compile("[a-z][a-z0-9_]*")


def is_reference(value: Any) -> bool:
    """Whether a value is a text such as ``file.py:name``."""
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


def file_of(reference: str) -> Path:
    """The file of ``file.py:name``."""
    return user_path(_REFERENCE.fullmatch(reference)["file"])


def load(field: str, reference: str) -> tuple[Any, str]:
    """What ``file.py:name`` names, and the SHA-256 of the file as it was read.

    Raises a ConfigError of the field where the file cannot be read or imported, or has no such name.
    """
    name, path = _REFERENCE.fullmatch(reference)["name"], file_of(reference)
    what = f"{field}={shown(reference)}: {path}"
    try:
        digest = sha256(path)
    except OSError as error:
        raise ConfigError(f"{what} cannot be read: {error.strerror}") from None
    try:
        module = _imported(path.resolve(), digest)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{what} cannot be imported: {told(error, path)}") from error
    here = vars(module)
    if name not in here:
        fits = (lambda c: isinstance(c, type)) if field == "method" else callable
        own = [n for n, c in here.items() if fits(c) and getattr(c, "__module__", "") == module.__name__]
        otherwise = f"it has {', '.join(own) or ('no class' if field == 'method' else 'no function')}"
        raise ConfigError(f"{what} has no {name}: {suggestion(name, own, otherwise)}")
    return here[name], digest


def told(error: BaseException, path: Path | None) -> str:
    """An error in a user's code in words, with its last line in their file."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    at = f" ({path.name}, line {lines[-1]})" if path and lines else ""
    return f"{type(error).__name__}: {error}{at}"


@functools.cache
def _imported(path: Path, digest: str) -> Any:
    """The module of a file. A program that runs is not executed again; files beside it can be imported by it."""
    program = sys.modules.get("__main__")
    if getattr(program, "__file__", None) and Path(program.__file__).resolve() == path:
        return program
    name = f"_sastc_{path.stem}_{digest[:10]}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where inspect looks for a class's file
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(path.parent))
    return module


def reference_of(code: Any, otherwise: str) -> str:
    """``file.py:name`` of a class or function that was given itself; `otherwise` if it lies in no file (a notebook)."""
    path = _file(code)
    if path is None:
        return otherwise
    inside = path.is_relative_to(here := Path.cwd())
    return f"{path.relative_to(here) if inside else path}:{code.__qualname__}"


def source_sha256(code: Any) -> str | None:
    """SHA-256 of the file that code lies in, or in a notebook of the code itself; None where it is not known."""
    if (path := _file(code)) is not None:
        return sha256(path)
    parts = [c for c in vars(code).values() if inspect.isfunction(c)] if isinstance(code, type) else [code]
    try:
        return hashlib.sha256("".join(map(inspect.getsource, parts)).encode()).hexdigest() if parts else None
    except (TypeError, OSError):
        return None


def _file(code: Any) -> Path | None:
    try:
        path = Path(inspect.getsourcefile(code) or "")
    except (TypeError, OSError):
        return None
    return path if path.is_file() else None


def in_small_letters(name: str) -> str:
    """The name of a class as runs carry it: ``spiking_cnn`` for ``SpikingCNN``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


@dataclasses.dataclass(frozen=True)
class Own:
    """A student or teacher of one's own: a function, or a class, that builds it."""

    name: str  #: In configs and names of runs: that of the function, in small letters.
    reference: str  #: ``file.py:name``; the name alone of what lies in no file.
    function: Callable[..., Any] | None = dataclasses.field(default=None, compare=False)  #: None: not loaded yet.
    sha256: str | None = dataclasses.field(default=None, compare=False)  #: Of the file that the function was read from.

    @classmethod
    def of(cls, role: str, value: Any, given: Collection[str], taken: Collection[str]) -> "Own | None":
        """A network by ``file.py:name`` or by the function itself, for the `role` student or teacher; else None.

        Raises a ConfigError where there is no such function, it needs other arguments than those `given`, or has a name
        that is `taken`.
        """
        if not (is_reference(value) or (callable(value) and not isinstance(value, str))):
            return None
        what = f"{role}={shown(value)}"
        if isinstance(value, str):
            function, digest = load(role, value)
            called, reference = value.rpartition(":")[2], value
        else:
            function, called = value, getattr(value, "__qualname__", "")
            if not (inspect.isclass(value) or inspect.isfunction(value)) or "." in called:
                raise ConfigError(f"{what}: must be a function, or a class, at the top of a file or notebook")
            if (digest := source_sha256(value)) is None:
                raise ConfigError(f"{what}: its source is not at hand: put it into a file, and give file.py:{called}")
            reference = reference_of(value, called)
        if not callable(function) or hasattr(type(function), "state_dict"):
            raise ConfigError(f"{what}: must be a function, or a class, that builds a network, not the network itself")
        name = in_small_letters(called)
        if not NAME.fullmatch(name) or name in taken:
            allowed = "begin with a letter, have letters, digits and _, and be none of the library's names"
            raise ConfigError(f"{what}: its name, {name}, must {allowed}, such as {', '.join(list(taken)[:3])}")
        own = cls(name, reference, function, digest)
        try:
            inspect.signature(function).bind(**dict.fromkeys(filter(own.asks_for, given)))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{what}: {error}: it may ask for {', '.join(given)}") from None
        return own

    def loaded(self) -> "Own":
        """The same with its function; a ConfigError where its file is not at hand."""
        if self.function is not None:
            return self
        if not is_reference(self.reference):
            raise ConfigError(f"network {self.name}: its code is not at hand: it lay in no file of its own")
        return dataclasses.replace(
            self, **dict(zip(("function", "sha256"), load("network", self.reference), strict=True))
        )

    @property
    def path(self) -> Path | None:
        """Its file."""
        return file_of(self.reference).resolve() if is_reference(self.reference) else None

    @property
    def facts(self) -> dict[str, Any]:
        """What a run records of it."""
        return {"name": self.name, "reference": self.reference, "sha256": self.loaded().sha256}

    def build(self, given: dict[str, Any]) -> Any:
        """What the function returns for those of the arguments `given` that it asks for."""
        own = self.loaded()
        return own.function(**{name: value for name, value in given.items() if own.asks_for(name)})

    def asks_for(self, name: str) -> bool:
        """Whether the function has a parameter of this name."""
        parameters = inspect.signature(self.loaded().function).parameters
        return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
