"""Which runs a table or figure needs: small YAML files, one grid of settings an entry.

.. code-block:: yaml

   title: Table 2
   notebook: table2
   quick:                       # one block a scale
     - {student: vgg11, teacher: [resnet19, wrn28_4], method: [kd, sastc], timesteps: [2, 3]}

Lists are expanded to all combinations; every setting is a field of :class:`~sastc.config.RunConfig`. Settings that go
together are one list: ``together: [{seed: 0, teacher_seed: 0}, {seed: 1, teacher_seed: 1}]``. A file with neither
scales nor ``of`` belongs to a notebook that needs no run. What else it may have:

- ``of: [table2]``: the notebook also reads the runs of these files in the same folder.
- ``of_record: [slim]``: other scales whose recorded runs are shown in the quick book, on a page of their own, or with
  ``one_page: true`` on the same page.
- ``quick_page: false``: the quick runs, which say nothing about the paper's claims, have no page.
- ``every_scale: true``: a page of record also reads what is recorded at all other scales but the quick one.
- ``joins: true``: a method of one's own among the changes, ``method=file.py:MyMethod`` with its options, is added to
  every list of methods; otherwise it replaces them.
"""

import dataclasses
import functools
import itertools
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sastc import methods
from sastc.checks import check_choice, shown
from sastc.config import (
    ROLES,
    SCALES,
    ConfigError,
    NoEffectError,
    RunConfig,
    check_name,
    method_options,
    parse_arguments,
    read_yaml,
)
from sastc.files import user_path
from sastc.references import is_reference

_read_yaml = functools.lru_cache(maxsize=256)(read_yaml)  # a plan reads most files many times; nobody changes contents


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The runs behind one notebook of results."""

    name: str
    title: str
    notebook: str
    scale: str
    runs: tuple[RunConfig, ...]
    needs_runs: bool = True
    of_record: tuple[str, ...] = ()  # other scales whose recorded runs are shown in the book
    one_page: bool = False  # whether they are shown on this page
    joined: str = ""  # a method of one's own that is run beside those of the file
    quick_page: bool = True  # whether there is a page of the quick runs
    every_scale: bool = False  # whether a page of record also reads the recorded runs of all other scales

    @property
    def command(self) -> str:
        """Command that makes these runs and their notebook."""
        return f"python workflow/launch.py --scale {self.scale} --only {self.name}"

    @property
    def teachers(self) -> tuple[RunConfig, ...]:
        """The teachers that these runs need, each once."""
        return tuple({t.identity: t for r in self.runs if (t := r.teacher_config())}.values())


def load_experiment(
    path: str | Path, scale: str = "quick", changes: dict[str, Any] | None = None, *, readers: tuple[Path, ...] = ()
) -> Experiment:
    """Read an experiment file for one scale; `changes` are settings that override the file's.

    `readers` are the files whose ``of`` led to this one. Raises ConfigError, which names file and entry, where there is
    no such scale, the file has another form, or a setting is not valid.
    """
    path = user_path(path)
    check_choice("scale", scale, SCALES)
    try:
        content = _read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    content = _checked(path, content)
    changes, own = _own_method(changes or {}) if content.get("joins") else (changes or {}, {})
    runs: dict[str, RunConfig] = {}
    for number, entry in enumerate(content.get(scale, []), 1):
        try:
            grid = {"scale": scale, **_for_method(entry, changes), **changes}
            if grid["scale"] != scale:
                raise ConfigError(f"scale={shown(grid['scale'])}: must be that of the block, {scale}")
            joining = [grid | own] if own and isinstance(grid.get("method"), list) else []
            for config in (config for part in (grid, *joining) for config in expand(part)):
                if runs.setdefault(config.identity, config).networks != config.networks:
                    both = [
                        ", ".join(own.reference for own in c.networks.values()) for c in (runs[config.identity], config)
                    ]
                    raise ConfigError(f"{' and '.join(both)}: must have different names, to be different runs")
        except NoEffectError as error:
            if any(role in changes for role in ROLES) and error.field not in changes:
                continue  # an entry about a setting that a network of one's own does not have
            raise ConfigError(f"{path}: {scale}, entry {number}: {error}") from None
        except ConfigError as error:
            raise ConfigError(f"{path}: {scale}, entry {number}: {error}") from None
    for name in content.get("of", []):
        other = path.parent / f"{name}.yaml"
        if other in (*readers, path):
            raise ConfigError(f"{path}: of={content['of']!r}: {name} itself reads the runs of this file")
        for config in load_experiment(other, scale, changes, readers=(*readers, path)).runs:
            runs.setdefault(config.identity, config)
    return Experiment(
        path.stem,
        content["title"],
        content["notebook"],
        scale,
        tuple(runs.values()),
        needs_runs=not content.keys().isdisjoint({"of", *SCALES}),
        of_record=tuple(content.get("of_record", [])),
        one_page=content.get("one_page", False),
        joined=method_class.name if (method_class := methods.find(own.get("method"))) else "",
        quick_page=content.get("quick_page", True),
        every_scale=content.get("every_scale", False),
    )


def _own_method(changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split `changes`: all but a method of one's own, and that method with its options."""
    found = methods.find(changes.get("method"))
    if found is None or found.name in methods.REGISTRY:
        return changes, {}
    own = {name: value for name, value in changes.items() if name in ("method", *found.options)}
    return {name: value for name, value in changes.items() if name not in own}, own


def _for_method(entry: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """An entry, without the options of its methods where `changes` replace these."""
    if "method" not in changes:
        return entry
    return {n: v for n, v in entry.items() if n not in _options_of(entry) or n in method_options(changes["method"])}


def _options_of(entry: dict[str, Any]) -> set[str]:
    """Names of the options that the methods of an entry have."""
    found = set()
    for part in (entry, *_together(entry)):
        chosen = part.get("method", "")
        found |= {name for one in (chosen if isinstance(chosen, list) else [chosen]) for name in method_options(one)}
    return found


def _together(entry: dict[str, Any]) -> list[dict[str, Any]]:
    groups = entry.get("together", [{}])
    if not isinstance(groups, list) or not groups or not all(isinstance(group, dict) for group in groups):
        raise ConfigError(f"together={shown(groups)}: must be a list of {{setting: value, ...}}")
    return groups


def _checked(path: Path, content: Any) -> dict[str, Any]:
    """The content of a file, an empty scale as an empty list; a ConfigError if it has another form."""
    lists, words = ("of", "of_record", *SCALES), {str: "text", bool: "true or false", dict: "{setting: value, ...}"}
    flags = ("one_page", "quick_page", "every_scale", "joins")
    known = {"title", "notebook", *flags, *lists}
    if not isinstance(content, dict) or not {"title", "notebook"} <= set(content):
        raise ConfigError(f"{path}: must have title and notebook, and one of {', '.join(SCALES)} for each scale")
    for name in content:
        check_choice(f"key of {path}", name, known)
    content = {name: [] if value is None and name in lists else value for name, value in content.items()}
    for name, value in content.items():
        kind = bool if name in flags else dict if name in SCALES else str
        items = value if name in lists else [value]
        if not isinstance(items, list) or not all(isinstance(item, kind) for item in items):
            raise ConfigError(f"{path}: {name}={shown(value)}: must be {'a list of ' * (name in lists)}{words[kind]}")
    if not set(of_record := content.get("of_record", [])) <= set(SCALES):
        raise ConfigError(f"{path}: of_record={shown(of_record)}: must be made of {', '.join(SCALES)}")
    return content


def expand(entry: dict[str, Any]) -> list[RunConfig]:
    """All configs of one grid; lists are the axes (a list of lists for a field that is a list itself).

    ``together: [{seed: 0, teacher_seed: 0}, {seed: 1, teacher_seed: 1}]`` is one axis of settings that go together; a
    setting that the entry itself has goes before. Text is read as on the command line. Raises ConfigError where an axis
    is empty or a setting is not valid.
    """
    own, groups = _options_of(entry), _together(entry)
    entry = {name: value for name, value in entry.items() if name != "together"}
    for name in itertools.chain(entry, *groups):
        check_name(name, own)
    axes = []
    for name, value in entry.items():
        is_list = name in RunConfig.fields() and "tuple" in str(RunConfig.fields()[name].type)
        is_axis = isinstance(value, list) and (not is_list or any(isinstance(v, list) for v in value))
        if is_axis and not value:
            raise ConfigError(f"{name}=[]: must have at least one value")
        axes.append([(name, _read(name, v, own)) for v in (value if is_axis else [value])])
    read = [{name: _read(name, value, own) for name, value in group.items()} for group in groups]
    return [_config(group | dict(choice)) for group in read for choice in itertools.product(*axes)]


_CONFIGS: dict[str, RunConfig] = {}  # experiments name the same runs again and again


def _config(values: dict[str, Any]) -> RunConfig:
    if any(is_reference(value) or callable(value) for value in values.values()):  # the code may have changed
        return RunConfig.from_dict(values)
    key = repr(values)  # in which 1, 1.0 and True differ
    if key not in _CONFIGS:
        _CONFIGS[key] = RunConfig.from_dict(values)
    return _CONFIGS[key]


def _read(name: str, value: Any, own: Collection[str]) -> Any:
    if isinstance(value, str):
        return parse_arguments([f"{name}={value}"], own)[name]
    return tuple(value) if isinstance(value, list) else value
