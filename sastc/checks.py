"""What a setting or an argument may be, and what a message says of a wrong one. Nothing here imports torch."""

import dataclasses
import difflib
import math
import reprlib
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any


class ConfigError(ValueError):
    """A field that is unknown, of the wrong type, or out of range; the message names field, value and choices."""


def option(
    default: Any,
    doc: str,
    *,
    group: str = "",
    applies: str = "all",
    choices=None,
    low=None,
    high=None,
    open_low=False,
    exact=False,
    was=None,
    teacher=False,
    own="",
) -> Any:
    """A setting: its default, its meaning, what it applies to, and what is allowed.

    Fields of :class:`~sastc.config.RunConfig` are made of these, and the options of a
    :class:`~sastc.methods.Method`. A field `applies` to "all" runs, to those of "students", or to the "methods" that
    list it; its `group` is a key of :data:`sastc.fields.GROUPS`; with `teacher` the run of a student's teacher has the
    same value; `own` says what a user's own code may be given as, beside the choices.

    An `exact` field changes how a run is computed, but no number of it: it is no part of the run's identity. A field
    that presets decide and that came after the first recorded runs says what it `was` before it existed: with that
    value it is no part of the identity either, so that those runs keep their names.
    """
    meta = dict(doc=doc, group=group, applies=applies, choices=choices, low=low, high=high, open_low=open_low)
    meta |= dict(exact=exact, was=was, teacher=teacher, own=own)
    return dataclasses.field(default=default, metadata=meta)


_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxlong, _REPR.maxother = 4, 80, 40, 80
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = 8


def shown(value: Any) -> str:
    """A wrong value in an error message: its ``repr``, shortened."""
    try:
        return _REPR.repr(value)
    except ValueError:  # Python prints no integer of so many digits
        return f"an integer of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"


def suggestion(name: Any, names: Collection[str], otherwise: str) -> str:
    """What to take for a name that is not one of `names`: at most three that look like it, or else `otherwise`."""
    close = difflib.get_close_matches(name[:80] if isinstance(name, str) else shown(name), names, n=3)
    return f"did you mean {' or '.join(close)}?" if close else otherwise


def check_choice(what: str, name: Any, names: Collection[str], otherwise: str = "") -> None:
    """Raise a :class:`ConfigError` with close matches, or `otherwise`, or all `names`, unless `name` is one of them."""
    names = list(names)  # a set cannot look for a list
    if name not in names:
        hint = suggestion(name, names, otherwise or "must be one of " + ", ".join(sorted(names)))
        raise ConfigError(f"unknown {what} {shown(name)}: {hint}")


def check(field: str, value: Any, valid: bool, allowed: str) -> None:
    """Raise the ValueError of a function's argument that is not `valid`: its name, its value and what is allowed."""
    if not valid:
        raise ValueError(f"{field}={shown(value)}: must be {allowed}")


def check_one_of(field: str, value: Any, choices: Collection[str]) -> None:
    """Raise a ValueError unless an argument is one of the texts."""
    check(field, value, isinstance(value, str) and value in choices, f"one of {', '.join(choices)}")


def check_number(field: str, value: Any, low: float | None, high: float | None = None, *, open_low=False) -> float:
    """An argument as a finite float within the bounds, or a ValueError."""
    found = _number(value, float, low, high, open_low)
    check(field, value, found is not None, _within("a finite number", low, high, open_low))
    return found


def check_integer(field: str, value: Any, low: int, high: int | None = None) -> int:
    """An argument as an int within the bounds, or a ValueError."""
    found = _number(value, int, low, high)
    check(field, value, found is not None, _within("an integer", low, high))
    return found


def is_count(value: Any) -> bool:
    """Whether `value` is an integer of at least 1."""
    return _number(value, int, 1) is not None


def _number(value: Any, kind: type, low: float | None, high: float | None = None, open_low: bool = False) -> Any:
    """The value as an int, or as a finite float, within the bounds; None if it is no such number."""
    if isinstance(value, bool) or not isinstance(value, Integral if kind is int else Real):
        return None
    try:
        n = kind(value)
    except (OverflowError, ValueError, TypeError):  # an integer of 400 digits, NumPy's "not a time"
        return None
    below = low is not None and (n <= low if open_low else n < low)
    outside = below or (high is not None and n > high) or (kind is float and not math.isfinite(n))
    return None if outside else n


def _within(kind: str, low: float | None, high: float | None, open_low: bool = False) -> str:
    """A kind of numbers and its bounds in words."""
    text = kind if low is None else f"{kind} {'>' if open_low else '>='} {low}"
    return text if high is None else f"{text} and <= {high}"


def allowed_values(field: dataclasses.Field) -> str:
    """What a field may be, in words."""
    meta = field.metadata
    if meta["choices"]:
        return "one of " + ", ".join(c or "''" for c in meta["choices"]) + f", or {meta['own']}" * bool(meta["own"])
    kind = field.type.__name__ if isinstance(field.type, type) else str(field.type).removesuffix(" | None")
    words = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "text"}
    return _within(words.get(kind, "a list of numbers"), meta["low"], meta["high"], meta["open_low"])


def check_value(field: dataclasses.Field, value: Any) -> Any:
    """The value in its field's type, or a ConfigError that names field, value and what is allowed."""
    kind, meta = str(field.type), field.metadata

    def fail(more=""):
        raise ConfigError(f"{field.name}={shown(value)}: must be {allowed_values(field)}{more}")

    def number(value, kind):
        found = _number(value, kind, meta["low"], meta["high"], meta["open_low"])
        return fail() if found is None else found

    if "tuple" in kind:
        return tuple(number(v, float) for v in value) if isinstance(value, tuple | list) else fail()
    if "bool" in kind:
        return value if isinstance(value, bool) else fail()
    if "float" in kind:
        return number(value, float)
    if "int" in kind:
        checked = number(value, int)
        return fail(" and < 2**63") if meta["high"] is None and checked >= 2**63 else checked
    if meta["choices"] and _number(value, int, None) is not None:  # 10 can only be the choice "10"
        return next((c for c in meta["choices"] if c.isdecimal() and int(c) == value), None) or fail()
    if not isinstance(value, str) or (meta["choices"] and value not in meta["choices"]):
        fail()
    return str.__str__(value)  # of a subclass, such as NumPy's, the text
