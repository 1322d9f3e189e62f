"""Code that a user brings as ``file.py:name``: methods and networks of their own. No torch."""

import dataclasses
import functools
import hashlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from sastc.checks import ConfigError, shown, suggestion
from sastc.files import sha256, user_path

_REFERENCE = re.compile(r"(?P<file>.+\.py):(?P<name>\w*)")
NAME = re.compile("[a-z][a-z0-9_]*")


def is_reference(value: Any) -> bool:
    """Whether a value is a text such as ``file.py:name``."""
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


def load(field: str, reference: str) -> Any:
    """What ``file.py:name`` names; a ConfigError of the field where the file cannot be imported or has no such name."""
    found = _REFERENCE.fullmatch(reference)
    file, name, what = found["file"], found["name"], f"{field}={shown(reference)}"
    path = user_path(file)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{what}: {file} cannot be read: {error.strerror}") from None
    try:
        module = _imported(path.resolve(), hashlib.sha256(content).hexdigest())
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{what}: {file} cannot be imported: {type(error).__name__}: {error}") from error
    here = vars(module)
    if name not in here:
        fits = (lambda c: isinstance(c, type)) if field == "method" else callable
        own = [n for n, c in here.items() if fits(c) and getattr(c, "__module__", "") == module.__name__]
        what_else = f"it has {', '.join(own) or ('no class' if field == 'method' else 'no function')}"
        raise ConfigError(f"{what}: {file} has no {name}: {suggestion(name, own, what_else)}")
    return here[name]


@functools.cache
def _imported(path: Path, digest: str) -> Any:
    name = f"_sastc_{path.stem}_{digest[:10]}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where inspect looks for a class's file
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def reference_of(code: Any, otherwise: str) -> str:
    """``file.py:name`` of a class or function that was given itself; `otherwise` if it lies in no file (a notebook)."""
    try:
        path = Path(inspect.getsourcefile(code) or "")
    except (TypeError, OSError):
        return otherwise
    inside = path.is_relative_to(here := Path.cwd())
    return f"{path.relative_to(here) if inside else path}:{code.__qualname__}"


def source_sha256(code: Any) -> str | None:
    """SHA-256 of the file that code lies in; None without one."""
    try:
        return sha256(Path(inspect.getsourcefile(code) or ""))
    except (TypeError, OSError):
        return None


def in_small_letters(name: str) -> str:
    """The name of a class as runs carry it: ``spiking_cnn`` for ``SpikingCNN``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


@dataclasses.dataclass(frozen=True)
class Own:
    """A student or teacher of one's own: a function, or a class, that builds it."""

    name: str  #: In configs and names of runs: that of the function, in small letters.
    reference: str  #: ``file.py:name``; the name alone of what lies in no file.
    function: Callable[..., Any] | None = dataclasses.field(default=None, compare=False)  #: None: not loaded yet.

    @classmethod
    def of(cls, role: str, value: Any, given: Collection[str], taken: Collection[str]) -> "Own | None":
        """A network by ``file.py:name`` or by the function itself, for the `role` student or teacher; else None.

        Raises a ConfigError where there is no such function, it needs other arguments than those `given`, or has a name
        that is `taken`.
        """
        if not (is_reference(value) or (callable(value) and not isinstance(value, str))):
            return None
        function = load(role, value) if isinstance(value, str) else value
        what = f"{role}={shown(value)}"
        if not callable(function):
            raise ConfigError(f"{what}: must be a function, or a class, that builds a network")
        name = in_small_letters(getattr(function, "__name__", type(function).__name__))
        if not NAME.fullmatch(name) or name in taken:
            raise ConfigError(
                f"{what}: its name, {name}, must be letters, digits and _, and none of {', '.join(taken)}"
            )
        own = cls(name, value if isinstance(value, str) else reference_of(function, name), function)
        try:
            inspect.signature(function).bind(**dict.fromkeys(filter(own.asks_for, given)))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{what}: {error}: it may ask for {', '.join(given)}") from None
        return own

    @property
    def code(self) -> Callable[..., Any]:
        """The function, loaded if need be; a ConfigError where its file is not at hand."""
        if self.function is not None:
            return self.function
        if not is_reference(self.reference):
            raise ConfigError(f"network {self.name}: its code is not at hand: it lay in no file of its own")
        return load("network", self.reference)

    @property
    def facts(self) -> dict[str, Any]:
        """What a run records of it."""
        return {"name": self.name, "reference": self.reference, "sha256": source_sha256(self.code)}

    def build(self, given: dict[str, Any]) -> Any:
        """What the function returns for those of the arguments `given` that it asks for."""
        return self.code(**{name: value for name, value in given.items() if self.asks_for(name)})

    def asks_for(self, name: str) -> bool:
        """Whether the function has a parameter of this name."""
        parameters = inspect.signature(self.code).parameters
        return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
