"""The teacher of a student's run: found, or trained first, and its weights loaded."""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from sastc import distributed, records
from sastc.build import check_networks
from sastc.config import RunConfig
from sastc.data import Dataset
from sastc.data.identity import differences, facts
from sastc.records import Run, RunError

# Fields that decide what one teacher alone looks like.
OWN_FIELDS = {
    "resnet18": ("resnet18_variant",),
    "wrn16_2": ("wrn16_2_variant",),
    "vgg11": ("vgg_downsample", "vgg_head"),
}


def teacher_run(
    config: RunConfig, results: str | Path, dataset: Dataset, train: Callable[[RunConfig], Run]
) -> Run | None:
    """The run of a student's teacher with its weights, which `train` makes where they are missing; None without one.

    A teacher that the field `teacher_run` names must have been trained on the same data as `dataset`.
    """
    if config.teacher_run:
        return distributed.once(lambda: _named(config, results, dataset))
    if (wanted := config.teacher_config()) is None:
        return None
    was = Run(records.run_path(wanted, results))
    # weights are not kept in git
    weights_missing = distributed.once(lambda: was.complete and not (was.path / "weights.pt").exists())
    recorded = distributed.once(lambda: was.metrics["weights_sha256"]) if weights_missing else None
    teacher = train(wanted)
    if recorded and distributed.rank() == 0 and (made := teacher.metrics["weights_sha256"]) != recorded:
        warnings.warn(
            f"{teacher.name} is trained again, as its weights were missing, and is not the recorded teacher: weights "
            f"{made[:10]} instead of {recorded[:10]}. Students of the two are not pairs; compare within one of them",
            stacklevel=2,
        )
    return teacher


def _named(config: RunConfig, results: str | Path, dataset: Dataset) -> Run:
    """The run that `teacher_run` names; a RunError unless it is of the teacher that the config asks for."""
    try:
        teacher = records.find_run(config.teacher_run, results)
    except RunError as error:
        raise RunError(f"teacher_run={error}") from None
    was, config = teacher.config, config.replace(width=config.teacher_width or config.width)
    if was.method != "teacher" or not (teacher.complete and (teacher.path / "weights.pt").exists()):
        raise RunError(f"teacher_run={config.teacher_run!r}: must be a finished teacher run with its weights.pt")
    names = ("teacher", "dataset", "width", "image_size", *OWN_FIELDS.get(config.teacher, ()))
    if other := [name for name in names if getattr(was, name) != getattr(config, name)]:
        trained, asked = (", ".join(f"{name}={getattr(c, name)!r}" for name in other) for c in (was, config))
        raise RunError(f"teacher_run={config.teacher_run!r}: was trained with {trained}; {asked} was asked for")
    check_networks(teacher, config)
    recorded, now = teacher.provenance.get("data", {}), facts(dataset)
    if other := differences(recorded, now, whole=True):  # of the same data it may have had another part
        raise RunError(
            f"teacher_run={config.teacher_run!r}: was trained on other data: {recorded.get('name')}, not the "
            f"{now['name']} of now (other {', '.join(other)}): must be a teacher of the data at hand"
        )
    return teacher


def load_weights(network: nn.Module, teacher: Run, classes: int) -> None:
    """Give a network the weights of a teacher's run; a RunError where they are not of this network and `classes`."""
    state = distributed.once(lambda: torch.load(teacher.weights, map_location="cpu", weights_only=True))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise RunError(
            f"{teacher.path}: its weights are not of a teacher of these {classes} classes "
            f"and this network ({reason}): train it on the data at hand"
        ) from None
