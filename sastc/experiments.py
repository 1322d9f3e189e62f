"""Which runs a table or figure needs: small YAML files, one grid of settings an entry.

.. code-block:: yaml

   title: Table 2
   notebook: table2
   quick:                       # one block a scale
     - {student: vgg11, teacher: [resnet19, wrn28_4], method: [kd, sastc], timesteps: [2, 3]}

Lists are expanded to all combinations; every setting is a field of :class:`~sastc.config.RunConfig`. ``of: [table2]``
adds the runs of other files in the same folder, which the notebook reads too. A file with neither scales nor ``of`` is
of a notebook that needs no run. ``of_record: [slim]`` names other scales whose recorded runs are shown in the quick
book, on a page of their own, or with ``one_page: true`` on the same.
"""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import yaml

from sastc.config import SCALES, ConfigError, RunConfig, check_name


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
    one_page: bool = False  # and that on this page

    @property
    def command(self) -> str:
        """Command that makes these runs and their notebook."""
        return f"python workflow/launch.py --scale {self.scale} --only {self.name}"

    @property
    def teachers(self) -> tuple[RunConfig, ...]:
        """The teachers those runs need, each once."""
        return tuple({t.identity: t for r in self.runs if (t := r.teacher_config())}.values())


def load_experiment(path: str | Path, scale: str = "quick", changes: dict[str, Any] | None = None) -> Experiment:
    """Read an experiment file for one scale; `changes` are settings that override the file's.

    Raises
    ------
    ConfigError
        The file is not of the form above, or a setting is not valid; the message names file and entry.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    known = {"title", "notebook", "of", "of_record", "one_page", *SCALES}
    if not isinstance(content, dict) or not {"title", "notebook"} <= set(content) <= known:
        raise ConfigError(f"{path}: must have title and notebook, and one of {', '.join(SCALES)} for each scale")
    runs: dict[str, RunConfig] = {}
    for number, entry in enumerate(content.get(scale) or [], 1):
        try:
            for config in expand({"scale": scale, **entry, **(changes or {})}):
                runs.setdefault(config.identity, config)
        except (ConfigError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path}: {scale}, entry {number}: {error}") from None
    for other in content.get("of") or []:
        for config in load_experiment(path.with_name(f"{other}.yaml"), scale, changes).runs:
            runs.setdefault(config.identity, config)
    needs_runs = not content.keys().isdisjoint({"of", *SCALES})
    of_record = tuple(content.get("of_record") or ())
    if set(of_record) - set(SCALES):
        raise ConfigError(f"{path}: of_record={list(of_record)!r}: must be made of {', '.join(SCALES)}")
    if not isinstance(one_page := content.get("one_page", False), bool):
        raise ConfigError(f"{path}: one_page={one_page!r}: must be true or false")
    return Experiment(
        path.stem, content["title"], content["notebook"], scale, tuple(runs.values()), needs_runs, of_record, one_page
    )


def expand(entry: dict[str, Any]) -> list[RunConfig]:
    """All configs of one grid; lists are the axes (a list of lists for a field that is a list itself)."""
    for name in entry:
        check_name(name)
    axes = []
    for name, value in entry.items():
        is_axis = isinstance(value, list) and (name != "milestones" or isinstance(value[0], list))
        values = value if is_axis else [value]
        axes.append([(name, tuple(v) if isinstance(v, list) else v) for v in values])
    return [RunConfig.from_dict(dict(choice)) for choice in itertools.product(*axes)]
