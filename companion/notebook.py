"""The start of every notebook: its parameters are checked, and it goes to the checkout."""

import ast
import os
import sys
from pathlib import Path
from typing import Any

from sastc.config import CODE, SCALES, ConfigError, RunConfig, check_name, method_options, shown
from sastc.experiments import check_choice
from sastc.references import is_reference

ROOT = Path(__file__).parents[1]
FOLDERS = ("results", "data")
STARTED = os.getcwd()  # of the notebook, which leaves it below
WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "text", dict: "{setting: value, ...}"}

# Parameters and their types. The fields of a run are left to RunConfig.
PAGE = {"experiment": str, "scale": str, "changes": dict, "results": str, "data": str}
TRAINING = {"results": str, "data": str, "device": str} | dict.fromkeys(RunConfig.fields())


def start(namespace: dict[str, Any], kinds: dict[str, type | None] = PAGE, **more: type) -> None:
    """Check the parameters of a notebook, given as its ``globals()``, and change to the checkout's folder.

    `kinds` and `more` are the parameters with their types. papermill only warns of a name that a notebook does not
    have, and then sets it. Here every name that it has set must be a parameter, whatever it looks like and whatever has
    overwritten it since; so must be every name in a cell of parameters edited by hand. A relative folder that papermill
    has set is one of the folder in which the notebook was started; the notebook's own ``results`` and ``data`` are
    those of the checkout.

    Raises
    ------
    ConfigError
        A name is no parameter, or a value is of another type; or there is no such experiment, scale or setting.
    """
    kinds = kinds | more
    if "method" in kinds:
        kinds |= dict.fromkeys(method_options(namespace.get("method")))
    given, edited = _set_by_hand()
    for name in given | edited:
        check_choice("parameter", name, kinds)
    for name, kind in kinds.items():
        if kind is not None:
            check_kind(name, namespace.get(name), kind)
    if "experiment" in kinds:
        check_choice("experiment", namespace["experiment"], [path.stem for path in ROOT.glob("experiments/*.yaml")])
        check_choice("scale", namespace["scale"], SCALES)
        for name in (changes := namespace["changes"]):
            check_name(name, method_options(changes.get("method")))
    namespace |= from_folder(STARTED, {name: namespace[name] for name in given if name in (*FOLDERS, *CODE)})
    os.chdir(ROOT)


def check_kind(name: str, value: Any, kind: type, example: Any = None) -> None:
    """Raise a :class:`ConfigError` unless `value` is of `kind`; an integer is a number, a bool is neither."""
    if type(value) not in (kind, int if kind is float else kind):
        like = "" if example is None else f", as {example!r} is"
        raise ConfigError(f"{name}={shown(value)}: must be {WORDS[kind]}{like}")
    if name in FOLDERS and "\0" in value:
        raise ConfigError(f"{name}={shown(value)}: must be a folder")


def from_folder(folder: str | Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters with relative paths, of ``results``, ``data`` and code, taken from `folder` instead of ROOT."""
    if os.path.samefile(folder, ROOT):  # what is recorded names no machine's folders
        return parameters
    names = [*FOLDERS, *(name for name in CODE if is_reference(parameters.get(name)))]
    paths = {name: value for name in names if isinstance(value := parameters.get(name), str)}
    return parameters | {name: os.path.join(folder, os.path.expanduser(path)) for name, path in paths.items()}


def _set_by_hand() -> tuple[set[str], set[str]]:
    """Names set by papermill's cell, and by the notebook's own cell of parameters, as each was run last.

    They are read from the kernel's history, since imports may have overwritten the values.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    history = getattr(shell, "history_manager", None)
    given, edited = set(), set()
    for cell in history.input_hist_parsed if history else ():
        try:
            body = ast.parse(cell).body
        except (SyntaxError, ValueError):  # it has not run
            continue
        assigned = {ast.unparse(t) for s in body if isinstance(s, ast.Assign) for t in s.targets}
        if cell.startswith("# Parameters\n"):  # papermill's comment
            given = assigned | {ast.unparse(s) for s in body if not isinstance(s, ast.Assign)}
        elif set(FOLDERS) <= assigned:
            edited = assigned
    return given, edited
