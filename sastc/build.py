"""The networks and the data of a config, and the trained network of a run."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sastc import methods
from sastc.checks import check
from sastc.config import ConfigError, RunConfig, arguments, neuron_fields
from sastc.data import EVENT_DATASETS, Dataset, load_dataset
from sastc.data.identity import differences, facts
from sastc.models import create_model
from sastc.models.own import OwnNetwork
from sastc.records import Run, RunError, find_run

RENAME = "give it another name, or start again with force"
# Fields that decide what both networks look like.
SHAPE = (
    "width", "taps", "resnet18_variant", "wrn16_2_variant", "vgg_downsample", "vgg_head", "pyramidnet_taps",
    "resnet_head", "hidden_init", "vggsnn_init",
)  # fmt: skip


def build_model(config: RunConfig, dataset: Dataset, role: str) -> nn.Module:
    """The student or teacher network of a config, freshly initialised from the current random state."""
    shared = {name: getattr(config, name) for name in SHAPE}
    sizes = {name: getattr(dataset, name) for name in ("num_classes", "in_channels", "image_size")}
    shared |= sizes
    if role == "teacher" and config.method != "teacher":
        shared["width"] = config.teacher_width or config.width
    if (own := config.networks.get(role)) is not None:
        fields = {name: getattr(config, name) for name in arguments(role) if name not in sizes}
        given = sizes | fields | dict(width=shared["width"])
        sequences = config.dataset in EVENT_DATASETS
        return OwnNetwork(own, given, config.timesteps, role == "student", sequences, config.teacher_input)
    if role == "teacher":
        return create_model(config.teacher, "relu", frames=config.teacher_input, **shared)
    shared |= dict(neuron_options={name: getattr(config, name) for name in neuron_fields()}, tap=config.student_tap)
    shared |= dict(timesteps=config.timesteps, output=config.output, tdbn_alpha=config.tdbn_alpha or None)
    try:
        return create_model(config.student, "lif", **shared)
    except ValueError as error:
        raise RunError(f"student_{error}") if str(error).startswith("tap=") else error from None


def load_model(run: Run, role: str | None = None, data: str | Path = "data") -> nn.Module:
    """The trained network of a finished run, in evaluation mode.

    `role` is "student" or "teacher"; by default what the run trained. The teacher of a student is in a run of its own
    below the same folder of results.

    Raises
    ------
    RunError
        ``weights.pt`` is missing or not the recorded one, the dataset below `data` is not that of the run, or the code
        of a network of one's own is missing or another one.
    ValueError
        The run has no such role.
    """
    config = run.config
    trained = "teacher" if config.method == "teacher" else "student"
    allowed = (trained, "teacher") if config.teacher else (trained,)
    check("role", role, role is None or role in allowed, f"one of {', '.join(dict.fromkeys(allowed))} for this run")
    if role == "teacher" and trained == "student":
        return load_model(find_run(run.provenance["teacher"]["run"], run.path.parent.parent), data=data)
    images = dataset(config, data)
    check_data(run, images)
    check_networks(run, config)
    model = build_model(config, images, trained)
    model.load_state_dict(torch.load(run.weights, map_location="cpu", weights_only=True))
    return model.eval()


def check_data(run: Run, now: Dataset) -> None:
    """Raise a RunError unless a run was made from the dataset `now`: the same pixels, labels, order and noise."""
    recorded, here = run.provenance.get("data", {}), facts(now)
    if other := differences(recorded, here):
        raise RunError(
            f"{run.path} was made from other data than those at hand: {recorded.get('name')}, not the {here['name']} "
            f"of now (other {', '.join(other)}): take the former data, or another results folder for these; or make "
            f"it again from these with {run.command} --force"
        )


def check_networks(run: Run, config: RunConfig, anew: bool = False) -> None:
    """Raise a RunError unless networks of one's own in a config have the code that a run was made with.

    For a run that is made `anew` they only need to be at hand.
    """
    was = run.provenance.get("networks", {}) if _begun(run) and not anew else {}
    for role, own in config.networks.items():
        try:
            now = own.facts
        except ConfigError as error:
            raise RunError(f"{run.path}: {error}") from None
        if role in was:
            check_same(run, was[role], now)


def _begun(run: Run) -> bool:
    """Whether something is computed that other code would not have given: it has ended, or an epoch is done."""
    return run.has("provenance.json") and (run.ended or any(run.path.glob("checkpoint*.pt")))


def check_same(run: Run, was: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise a RunError where code of one's own is not that of a run: another file, or another name in it."""
    before, after = was["sha256"], now["sha256"]
    if was["reference"].rpartition(":")[2] != now["reference"].rpartition(":")[2]:
        raise RunError(f"{run.path} was made with {was['reference']}, not with {now['reference']}: {RENAME}")
    if before and after and before != after:
        raise RunError(
            f"{run.path} was made with other code of {was['reference']}: its SHA-256 was {before[:10]}..., and is "
            f"{after[:10]}...: {RENAME}"
        )


def check_code(recorded: Run, config: RunConfig, force: bool = False) -> None:
    """Raise a RunError if a run was made, or begun, with other code of a method or network that is not the library's.

    With `force`, which makes the run again, any code that is at hand will do.
    """
    kind, done = config.method_class, recorded.complete and not force
    if kind is not None and kind.recorded and not done:
        raise RunError(f"{recorded.path}: the code of its method is not at hand: {config.command} takes it from there")
    own = methods.facts(kind) if kind is not None and not kind.recorded and not force else None
    if own and _begun(recorded) and (was := recorded.provenance.get("method")):
        check_same(recorded, was, own)
    if not (done and any(own.function is None for own in config.networks.values())):  # as a record gives them
        check_networks(recorded, config, anew=force)


def dataset(config: RunConfig, root: str | Path = "data") -> Dataset:
    """The dataset of a config below the folder `root`, with its subset, noise and validation images."""
    if not isinstance(root, str | os.PathLike):  # a record names the dataset by the config alone
        raise RunError(f"data=<{type(root).__name__}>: must be a path; for images of your own use dataset=imagefolder")
    return load_dataset(**dataset_options(config), root=root)


def dataset_options(config: RunConfig) -> dict[str, Any]:
    """Arguments of :func:`sastc.load_dataset` for a config; equal arguments give equal datasets."""
    names = ["image_size", "train_fraction", "label_noise", "data_seed", "validation"]
    if config.dataset in EVENT_DATASETS:
        names += ["timesteps", "binning", "event_augment"]
    chosen = {name: getattr(config, name) for name in names}
    return dict(name=config.dataset, train_subset=config.train_subset or None) | chosen
