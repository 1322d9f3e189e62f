"""What a setting may be, and what a message says of a wrong one. Nothing here imports torch."""

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
) -> Any:
    """A setting: its default, its meaning, what it applies to, and what is allowed.

    Fields of :class:`~sastc.config.RunConfig` are made of these, and the options of a
    :class:`~sastc.methods.Method`. A field `applies` to "all" runs, to those of "students", or to the "methods" that
    list it; its `group` is a key of :data:`sastc.config.GROUPS`; with `teacher` the run of a student's teacher has the
    same value.

    An `exact` field changes how a run is computed, but no number of it: it is no part of the run's identity. A field
    that presets decide and that came after the first recorded runs says what it `was` before it existed: with that
    value it is no part of the identity either, so that those runs keep their names.
    """
    meta = dict(doc=doc, group=group, applies=applies, choices=choices, low=low, high=high, open_low=open_low)
    meta |= dict(exact=exact, was=was, teacher=teacher)
    return dataclasses.field(default=default, metadata=meta)


def close_matches(name: Any, names: Collection[str]) -> list[str]:
    """At most three of `names` that look like `name`."""
    return difflib.get_close_matches(name[:80] if isinstance(name, str) else shown(name), names, n=3)


_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxlong, _REPR.maxother = 4, 80, 40, 80
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = 8


def shown(value: Any) -> str:
    """A wrong value in an error message: its ``repr``, shortened."""
    try:
        return _REPR.repr(value)
    except ValueError:  # Python prints no integer of so many digits
        return f"an integer of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"


def allowed_values(field: dataclasses.Field) -> str:
    """What a field may be, in words."""
    meta = field.metadata
    if meta["choices"]:
        return "one of " + ", ".join(c or "''" for c in meta["choices"])
    kind = str(field.type).replace("| None", "").strip()
    words = {"<class 'int'>": "an integer", "int": "an integer", "<class 'float'>": "a number", "float": "a number"}
    words |= {"<class 'bool'>": "true or false", "bool": "true or false", "<class 'str'>": "text"}
    text = words.get(kind, "a list of numbers")
    if meta["low"] is not None:
        text += f" {'>' if meta['open_low'] else '>='} {meta['low']}"
    return text + (f" and <= {meta['high']}" if meta["high"] is not None else "")


def check_value(field: dataclasses.Field, value: Any) -> Any:
    """The value in its field's type, or a ConfigError that names field, value and what is allowed."""

    def fail(more=""):
        raise ConfigError(f"{field.name}={shown(value)}: must be {allowed_values(field)}{more}")

    def number(value, kind, convert):
        if isinstance(value, bool) or not isinstance(value, kind):
            fail()
        try:
            return convert(value)
        except (OverflowError, ValueError, TypeError):  # an integer of 400 digits, NumPy's "not a time"
            fail()

    kind, meta = str(field.type), field.metadata
    if "tuple" in kind:
        if not isinstance(value, tuple | list):
            fail()
        checked = numbers = tuple(number(v, Real, float) for v in value)
    elif "bool" in kind:
        if not isinstance(value, bool):
            fail()
        return value
    elif "float" in kind:
        checked = number(value, Real, float)
        numbers = (checked,)
    elif "int" in kind:
        checked = number(value, Integral, int)
        if meta["high"] is None and checked >= 2**63:
            fail(" and < 2**63")
        numbers = (checked,)
    else:
        if meta["choices"] and isinstance(value, Integral) and not isinstance(value, bool):
            value = number(value, Integral, int)  # 10 can only be the choice "10"
            return next((c for c in meta["choices"] if c.isdecimal() and int(c) == value), None) or fail()
        if not isinstance(value, str) or (meta["choices"] and value not in meta["choices"]):
            fail()
        return str.__str__(value)  # of a subclass, such as NumPy's, the text
    for n in numbers:
        low, high = meta["low"], meta["high"]
        below = low is not None and (n <= low if meta["open_low"] else n < low)
        if below or (high is not None and n > high) or (isinstance(n, float) and not math.isfinite(n)):
            fail()
    return checked
