"""The networks and the data of a config, and the trained network of a run."""

import os
from pathlib import Path

import torch
from torch import nn

from sastc.config import RunConfig
from sastc.data import Dataset, load_dataset
from sastc.models import create_model
from sastc.models.layers import check
from sastc.records import Run, RunError, find_run

# Fields that decide what both networks look like.
SHAPE = ("width", "taps", "resnet18_variant", "wrn16_2_variant", "vgg_downsample", "vgg_head", "pyramidnet_taps")
SHAPE += ("resnet_head", "hidden_init", "vggsnn_init")


def build_model(config: RunConfig, dataset: Dataset, role: str) -> nn.Module:
    """The student or teacher network of a config, freshly initialised from the current random state."""
    shared = {name: getattr(config, name) for name in SHAPE}
    shared |= {name: getattr(dataset, name) for name in ("num_classes", "in_channels", "image_size")}
    if role == "teacher":
        return create_model(config.teacher, "relu", frames=config.teacher_input, **shared)
    neuron = ("decay", "threshold", "gamma", "surrogate", "reset", "detach_reset")
    return create_model(
        config.student,
        "lif",
        timesteps=config.timesteps,
        neuron_options={name: getattr(config, name) for name in neuron},
        tap=config.student_tap,
        output=config.output,
        tdbn_alpha=config.tdbn_alpha or None,
        **shared,
    )


def load_model(run: Run, role: str | None = None, data: str | Path = "data") -> nn.Module:
    """The trained network of a finished run, in evaluation mode.

    `role` is "student" or "teacher"; by default what the run trained. The teacher of a student's run lies in a run of
    its own in the same folder. Raises RunError where ``weights.pt`` is missing or not the recorded one, and
    ValueError for a role that the run does not have.
    """
    config = run.config
    trained = "teacher" if config.method == "teacher" else "student"
    allowed = (trained, "teacher") if config.teacher else (trained,)
    check("role", role, role is None or role in allowed, f"one of {', '.join(dict.fromkeys(allowed))} for this run")
    if role == "teacher" and trained == "student":
        return load_model(find_run(run.provenance["teacher"]["run"], run.path.parent.parent), data=data)
    model = build_model(config, dataset(config, data), trained)
    model.load_state_dict(torch.load(run.weights, map_location="cpu", weights_only=True))
    return model.eval()


def check_root(data: str | Path) -> None:
    """Raise a RunError unless `data` is a path: a record names the dataset by the config alone."""
    if not isinstance(data, str | os.PathLike):
        raise RunError(f"data=<{type(data).__name__}>: must be a path; for images of your own use dataset=imagefolder")


def dataset(config: RunConfig, root: str | Path = "data") -> Dataset:
    """The dataset of a config, with its subset, noise and validation images."""
    check_root(root)
    return load_dataset(
        config.dataset,
        root=root,
        image_size=config.image_size,
        train_subset=config.train_subset or None,
        train_fraction=config.train_fraction,
        label_noise=config.label_noise,
        data_seed=config.data_seed,
        validation=config.validation,
        timesteps=config.timesteps,
        binning=config.binning,
        event_augment=config.event_augment,
    )
