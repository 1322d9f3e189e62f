"""RunConfig: every hyper-parameter of a run, validated, with its documented default.

A field left at ``None`` takes its value from the presets at the end of this file, so a finished config is always
complete. Nothing here imports torch: configs are cheap to build, list and check.
"""

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import re
import reprlib
import shlex
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any, ClassVar

import yaml

MODELS = (
    "vgg11", "vgg13", "vggsnn", "resnet18", "resnet19", "resnet34", "resnet32x4",
    "wrn16_2", "wrn28_4", "wrn40_2", "pyramidnet20",
)  # fmt: skip
EVENT_DATASETS = ("digits_dvs", "nmnist", "dvs_gesture", "dvs_cifar10")
DATASETS = ("digits", "cifar10", "cifar100", "imagenet", "imagefolder", *EVENT_DATASETS)
METHODS = ("baseline", "kd", "feature_kd", "sastc")
SCALES = ("quick", "slim", "quarter", "paper")
VARIANTS = ("paper", "released")

STUDENT = ("baseline", "kd", "feature_kd", "sastc")  # methods that train a spiking student
DISTIL = ("kd", "feature_kd", "sastc")
FEATURE = ("feature_kd", "sastc")
SASTC = ("sastc",)
EVERY = ("teacher", *STUDENT)


class ConfigError(ValueError):
    """A field that is unknown, of the wrong type, or out of range; the message names field, value and choices."""


def option(
    default: Any, doc: str, *, applies=EVERY, choices=None, low=None, high=None, open_low=False, exact=False, was=None
) -> Any:
    """A field of :class:`RunConfig`: its default, its meaning, the methods it applies to, and what is allowed.

    An `exact` field changes how a run is computed, but no number of it: it is no part of the run's identity. A field
    that presets decide and that came after the first recorded runs says what it `was` before it existed: with that
    value it is no part of the identity either, so that those runs keep their names.
    """
    meta = dict(doc=doc, applies=applies, choices=choices, low=low, high=high, open_low=open_low, exact=exact, was=was)
    return dataclasses.field(default=default, metadata=meta)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All hyper-parameters of one run; ``RunConfig(student="vgg11", method="sastc", timesteps=3)``.

    Fields at ``None`` come from the presets of `scale`, `dataset` and `variant`. ``python -m sastc explain`` prints
    every field with its meaning and choices.

    Raises
    ------
    ConfigError
        On the first field that is not valid, before any work starts.
    """

    # What is run
    dataset: str = option("digits", "dataset", choices=DATASETS)
    student: str = option("vgg11", "spiking student; empty for method teacher", choices=("", *MODELS))
    teacher: str = option(
        "resnet19",
        "ANN teacher; a baseline only measures its mismatch to it, and may leave it empty",
        choices=("", *MODELS),
    )
    method: str = option("sastc", "how the student is trained; teacher trains the ANN itself", choices=EVERY)
    timesteps: int = option(2, "time steps T of the student, and frames of event data", applies=STUDENT, low=1)
    variant: str = option(
        "paper", "preset of the method: the text as printed, or the authors' released code", choices=VARIANTS
    )
    scale: str = option("quick", "preset of size and schedule", choices=SCALES)
    seed: int = option(0, "seed of initial weights, data order and augmentation", low=0, high=2**64 - 1)

    # Training
    epochs: int | None = option(None, "training epochs", low=1)
    batch_size: int | None = option(None, "instances a step", low=2)
    learning_rate: float | None = option(
        None, "learning rate of SGD: the first of schedule=steps, the highest of triangle", low=0, open_low=True
    )
    schedule: str | None = option(
        None,
        "learning rate over the training: drops at the milestones (steps), or a straight rise up to schedule_peak and "
        "a straight fall to zero, step by step (triangle)",
        choices=("steps", "triangle"),
        was="steps",
    )
    schedule_peak: float = option(0.2, "share of the steps at which the triangle is highest", low=0, high=1)
    momentum: float = option(0.9, "momentum of SGD", low=0, high=1)
    nesterov: bool | None = option(None, "Nesterov's momentum", was=False)
    weight_decay: float | None = option(None, "L2 penalty of SGD", low=0)
    decay_norms: bool | None = option(None, "L2 penalty on batch norms and biases too", was=True)
    milestones: tuple[float, ...] | None = option(
        None, "fractions of the epochs after which the learning rate drops", low=0, high=1
    )
    lr_drop: float = option(0.1, "factor on the learning rate at each milestone", low=0, high=1, open_low=True)
    early_stop: int = option(0, "stop after so many epochs without a better test accuracy; 0: never", low=0)
    precision: str | None = option(
        None,
        "arithmetic of the networks, losses are fp32; tf32 is fp32 but for convolutions on GPUs that have it",
        choices=("fp32", "tf32", "bf16"),
    )
    memory_format: str | None = option(
        None, "layout of images and convolutions in memory", choices=("contiguous", "channels_last")
    )
    partial_batch: str | None = option(
        None, "last batch of an epoch if it is not full: drop or keep it", choices=("drop", "keep")
    )
    reshuffle: bool | None = option(None, "draw a new order each epoch; the released code repeats one order")
    accumulate: int = option(
        1,
        "micro-batches that a step is computed in, to save memory; batch-norm statistics and similarity matrices are "
        "then those of a micro-batch",
        low=1,
    )
    checkpoint: str | None = option(
        None,
        "keep of every block and projector its input alone and compute the rest again in the backward pass (blocks): "
        "the same numbers in less memory and more time",
        choices=("none", "blocks"),
        exact=True,
    )
    batch_norm: str = option(
        "global",
        "training statistics of batch norms when several processes share a batch: of all, or of each process's share",
        choices=("global", "per_process"),
    )

    # Networks
    width: float | None = option(None, "factor on the channel counts of student and teacher", low=0, open_low=True)
    teacher_width: float = option(0.0, "the same of the teacher alone; 0: that of width", applies=STUDENT, low=0)
    image_size: int | None = option(None, "height and width of the images, in pixels", low=8)
    resnet18_variant: str | None = option(
        None,
        "ResNet-18: [3,3,2] blocks in three stages (released) or [2,2,2,2] (standard)",
        choices=("released", "standard"),
    )
    wrn16_2_variant: str = option(
        "released",
        "WRN-16-2: the released bottleneck network or the published wide ResNet",
        choices=("released", "wide_resnet"),
    )
    vgg_downsample: str = option("stride", "VGG-11: stride-2 convolutions or pooling", choices=("stride", "pool"))
    vgg_head: str = option("stacked", "VGG-11: three stacked linear layers or one", choices=("stacked", "single"))
    resnet_head: str = option(
        "hidden",
        "spiking residual networks: 256 LIF neurons before the last layer, or none",
        choices=("hidden", "single"),
    )
    hidden_init: str | None = option(
        None,
        "first weights of those 256 neurons: large enough that some fire (balanced), or PyTorch's default",
        choices=("balanced", "released"),
    )
    pyramidnet_taps: str = option(
        "released", "PyramidNet's tapped stages: stage 2 is skipped in the released code", choices=("released", "all")
    )
    vggsnn_init: str = option(
        "pytorch",
        "VGGSNN: first weights of the convolutions: PyTorch's default, or TET's (he)",
        choices=("pytorch", "he"),
    )
    taps: str = option(
        "stages",
        "candidate layers: stage outputs, or the stem too",
        applies=STUDENT,
        choices=("stages", "stem_and_stages"),
    )
    student_tap: str = option(
        "spikes",
        "what a student layer shows: spikes, or the potential before reset",
        applies=STUDENT,
        choices=("spikes", "membrane"),
    )
    output: str = option(
        "mean_current",
        "student logits: mean over T of the last layer's output, or of a leaky membrane fed by it",
        applies=STUDENT,
        choices=("mean_current", "leaky_membrane"),
    )
    tdbn_alpha: float = option(
        0.0, "threshold-dependent batch-norm: normalise to alpha·V_th; 0: plain batch-norm", applies=STUDENT, low=0
    )

    # Neuron (Eq. 9-11)
    decay: float = option(0.5, "leak λ of the membrane", applies=STUDENT, low=0, high=1, open_low=True)
    threshold: float = option(1.0, "firing threshold V_th", applies=STUDENT, low=0, open_low=True)
    gamma: float | None = option(None, "width γ of the surrogate gradient", applies=STUDENT, low=0, open_low=True)
    surrogate: str = option(
        "triangle",
        "shape of the surrogate gradient",
        applies=STUDENT,
        choices=("triangle", "rectangle", "sigmoid", "atan"),
    )
    reset: str = option("hard", "reset to zero, or by subtraction", applies=STUDENT, choices=("hard", "soft"))
    detach_reset: bool = option(False, "no gradient through the spike in the reset", applies=STUDENT)

    # Losses (Eq. 6-8)
    temperature: float = option(4.0, "temperature α of Eq. 8", applies=DISTIL, low=0, open_low=True)
    kl_weight: float = option(1.0, "weight of the KL term of Eq. 8", applies=DISTIL, low=0)
    ce_weight: float = option(1.0, "weight of the cross-entropy term of Eq. 8", applies=DISTIL, low=0)
    beta: float | None = option(None, "weight β of the feature loss in Eq. 7", applies=FEATURE, low=0)
    beta_schedule: str = option(
        "preset",
        "β over the epochs: constant, or 0.01, 0.1 and 1 times β in the three thirds; by preset so with event data",
        applies=FEATURE,
        choices=("preset", "constant", "thirds"),
    )
    feature_pairs: str = option(
        "one_to_one",
        "feature KD's (student, teacher) layers: one_to_one, all, last, or such as 1-1,2-3",
        applies=("feature_kd",),
    )
    reduction: str = option(
        "mean", "Eq. 6: mean over T, B and student layers, or the bare sum", applies=SASTC, choices=("mean", "sum")
    )

    # Calibration (Eq. 2-5)
    mlp_dim: int | None = option(
        None, "input width of the query and key MLPs, at least batch_size", applies=SASTC, low=2
    )
    qk_norm: bool = option(True, "L2-normalise queries and keys", applies=SASTC)
    score_scale: float = option(1.0, "factor on the scores in Eq. 5", applies=SASTC)
    mlp_sharing: str = option(
        "per_layer",
        "one query (key) MLP for each layer, or one for all",
        applies=SASTC,
        choices=("per_layer", "shared"),
    )
    sim_norm: str = option("none", "normalisation of the similarity rows", applies=SASTC, choices=("none", "row_l2"))
    sim_order: str = option(
        "batch", "order of the similarity rows' entries", applies=SASTC, choices=("batch", "sorted")
    )
    detach_sim: bool = option(False, "no gradient to the student through the attention", applies=SASTC)
    similarity: str = option(
        "global",
        "similarity matrices (and target_norm) when several processes share a batch: rows of the whole batch, or of "
        "each process's share",
        applies=STUDENT,
        choices=("global", "per_process"),
    )
    attention: str = option(
        "learned",
        "where the weights come from: learned, or controls of ours: MLPs that stay as they start (untrained), 1/A "
        "(uniform), fixed draws within the bounds (random), a softmax of the layers' CKA (cka), all on the teacher "
        "layer with the smallest (easiest) or largest (hardest) distance of each instance, step and student layer",
        applies=SASTC,
        choices=("learned", "untrained", "uniform", "random", "cka", "easiest", "hardest"),
    )
    target_norm: str = option(
        "none",
        "ours: standardise each teacher layer's features to mean 0 and variance 1 before they become targets (layer)",
        applies=FEATURE,
        choices=("none", "layer"),
    )
    target_scale: tuple[float, ...] = option(
        (),
        "ours: factors on the teacher layers' features before they become targets, one a layer; empty: none",
        applies=FEATURE,
        low=0,
        open_low=True,
    )
    resize_student: str = option(
        "max", "pooling of a student map larger than its target", applies=FEATURE, choices=("max", "avg")
    )
    small_student: str = option(
        "pool_target",
        "a student map smaller than its target",
        applies=FEATURE,
        choices=("pool_target", "upsample_student"),
    )
    projector_bn: str = option(
        "per_step", "batch-norm in the projectors", applies=FEATURE, choices=("per_step", "folded", "none")
    )

    # Data
    train_subset: int | None = option(None, "train on a stratified subset of so many images; 0: all", low=0)
    train_fraction: float = option(1.0, "share of each class's training images", low=0, high=1, open_low=True)
    label_noise: float = option(0.0, "share of training labels changed to another class", low=0, high=1)
    data_seed: int = option(0, "seed of subset, label noise and validation images", low=0)
    validation: float = option(
        0.0, "share of each class's training images held out and tested on instead of the test split", low=0, high=0.5
    )

    # Event data
    binning: str = option(
        "time", "frames of event data: of equal time, or of equally many events", choices=("time", "count")
    )
    event_augment: str = option(
        "roll",
        "training frames of event data: moved by whole pixels with the other side (roll) or zeros (shift) coming in, "
        "and mirrored where that keeps the class; or none",
        choices=("none", "shift", "roll"),
    )
    teacher_input: str = option(
        "mean_frame",
        "how the ANN sees event data: the mean of the frames, or each step's frame, compared with the student's step",
        choices=("mean_frame", "per_step"),
    )

    # Teacher
    teacher_seed: int = option(0, "seed of the teacher", applies=STUDENT, low=0, high=2**64 - 1)
    teacher_reshuffle: bool = option(
        True,
        "the teacher draws a new order each epoch, as the released teacher script does",
        applies=STUDENT,
        exact=True,  # of the student; it is part of the teacher's identity, and so of the run's
    )
    teacher_epochs: int = option(0, "epochs of the teacher; 0: the preset's", applies=STUDENT, low=0)
    noise_teacher: str = option(
        "clean", "teacher of a student with noisy labels", applies=STUDENT, choices=("clean", "same_noise")
    )
    subset_teacher: str = option(
        "same_subset", "teacher of a student with fewer images", applies=STUDENT, choices=("same_subset", "full")
    )
    teacher_run: str = option("", "name of a recorded teacher run to use instead of the preset's", applies=STUDENT)

    # Measures
    stm_batches: int | None = option(
        None, "training batches an epoch on which the mismatch score is measured; 0: all", applies=STUDENT, low=0
    )
    stm_pairs: str = option("all", "candidate pairs of the mismatch score (Eq. 1)", applies=STUDENT)
    stm_distance: str = option("mse", "distance of Eq. 1", applies=STUDENT, choices=("mse", "euclidean"))
    stm_log_base: str = option(
        "e", "logarithm of the mismatch score", applies=STUDENT, choices=("e", "2", "10", "none")
    )
    stm_weighted: bool = option(False, "weight the mismatch by the attention (SASTC)", applies=SASTC)
    probe_batches: int = option(
        2, "test batches on which attention and CKA are recorded each epoch", applies=STUDENT, low=1
    )
    attention_steps: int = option(
        0,
        "record attention, distances and the gradients of both losses at each of the first 20 training steps and at "
        "every so many after; 0: none",
        applies=SASTC,
        low=0,
    )
    fisher_samples: int = option(
        0, "training images on which the temporal Fisher information is recorded each epoch", applies=STUDENT, low=0
    )
    headline: str | None = option(
        None, "accuracy to report: of the last or of the best epoch", choices=("last", "best")
    )

    def __post_init__(self):
        fields, presets = _fields(), {}
        for name, field in fields.items():
            if field.default is not None or getattr(self, name) is not None:
                object.__setattr__(self, name, _check(field, getattr(self, name)))
            else:
                presets[name] = field
        values = _presets(self)
        for name, field in presets.items():
            object.__setattr__(self, name, _check(field, values.get(name)))
        self._check_together()

    def _check_together(self) -> None:
        if self.method == "teacher":
            object.__setattr__(self, "student", "")  # a teacher is the same whatever student it is for
        elif not self.student:
            raise ConfigError(f"student='': method={self.method!r} needs one of {', '.join(MODELS)}")
        if not self.teacher and self.method != "baseline":
            raise ConfigError(f"teacher='': method={self.method!r} needs one of {', '.join(MODELS)}")
        if self.method == "sastc" and self.mlp_dim < self.batch_size:
            raise ConfigError(f"mlp_dim={self.mlp_dim!r}: must be at least batch_size={self.batch_size}")
        if self.batch_size % self.accumulate or self.batch_size < 2 * self.accumulate:
            raise ConfigError(
                f"accumulate={self.accumulate!r}: must divide batch_size={self.batch_size} into micro-batches of "
                "at least 2 instances"
            )
        if self.nesterov and not self.momentum:
            raise ConfigError("nesterov=True: needs momentum > 0")
        if list(self.milestones) != sorted(self.milestones):
            raise ConfigError(f"milestones={self.milestones!r}: must be in ascending order")

    @classmethod
    def fields(cls) -> dict[str, dataclasses.Field]:
        """All fields by name; ``metadata`` holds doc, choices, low, high and the methods a field applies to."""
        return dict(_fields())

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunConfig":
        """A config from names and values; unknown names are errors."""
        for name in values:
            check_name(name)
        return cls(**values)

    @classmethod
    def from_arguments(cls, arguments: list[str]) -> "RunConfig":
        """A config from ``["key=value", ...]``, the values read as YAML."""
        return cls.from_dict(parse_arguments(arguments))

    @classmethod
    def from_notebook(cls, namespace: dict[str, Any], also: tuple[str, ...] = ()) -> "RunConfig":
        """A config from a notebook's ``globals()``: every plain variable is a field, or named in `also`, or an error.

        papermill only warns of a parameter that the notebook does not have; here a misspelt name stops the notebook,
        and so do settings that a file of parameters holds one level too deep.
        """
        plain = (str, int, float, bool, list, tuple, dict, type(None))
        values = {
            name: value
            for name, value in namespace.items()
            if not name.startswith("_")
            and not name.isupper()
            and name not in ("In", "Out", *also)
            and isinstance(value, plain)
        }
        for name in values:
            check_name(name, also)
        return cls.from_dict({n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})

    def replace(self, **changes) -> "RunConfig":
        """The same config with some fields changed; fields that have their preset's value follow the presets."""
        values, presets = dataclasses.asdict(self), _presets(self)
        open_again = {name: None for name, value in presets.items() if values[name] == value}
        return RunConfig.from_dict(values | open_again | changes)

    def to_dict(self, relevant: bool = False) -> dict[str, Any]:
        """All fields, in a form that JSON keeps; with `relevant` only those that decide the run's numbers."""
        return {
            f.name: list(v) if isinstance(v := getattr(self, f.name), tuple) else v
            for f in _fields().values()
            if not relevant
            or (self.method in f.metadata["applies"] and not f.metadata["exact"])
            or (f.name == "timesteps" and self.takes_steps)
        }

    @property
    def takes_steps(self) -> bool:
        """Whether the run depends on T: every student's does, and a teacher's on event data, which come in T frames."""
        return self.method != "teacher" or self.dataset in EVENT_DATASETS

    @property
    def changed(self) -> dict[str, Any]:
        """Settings that matter to this run and have neither their default nor their preset's value.

        What is run, at which scale and with which seed is not among them.
        """
        presets, fields = _presets(self), self.fields()
        what = ("dataset", "student", "teacher", "method", "timesteps", "scale", "seed")
        values = {name: getattr(self, name) for name in self.to_dict(relevant=True) if name not in what}
        return {name: v for name, v in values.items() if v != presets.get(name, fields[name].default)}

    @property
    def scaled(self) -> dict[str, tuple[Any, Any]]:
        """What a smaller scale changes of this run: its value and that of the paper's scale, by field."""
        names = ("dataset", "student", "teacher", "method", "timesteps", "variant")
        papers = RunConfig(**{name: getattr(self, name) for name in names}, scale="paper")
        left_open = [name for name in self.to_dict(relevant=True) if self.fields()[name].default is None]
        both = {name: (getattr(self, name), getattr(papers, name)) for name in left_open}
        return {name: pair for name, pair in both.items() if pair[0] != pair[1]}

    def teacher_config(self) -> "RunConfig | None":
        """The run that trains this run's teacher; ``None`` if there is none, or if `teacher_run` names one."""
        return self._teacher

    @functools.cached_property
    def _teacher(self) -> "RunConfig | None":
        if self.method == "teacher" or not self.teacher or self.teacher_run:
            return None
        shared = (
            "dataset",
            "teacher",
            "variant",
            "scale",
            "image_size",
            "data_seed",
            "train_subset",
            "validation",
            "precision",
            "memory_format",
            "binning",
            "event_augment",
            "teacher_input",
        )
        shared += (
            "resnet18_variant",
            "wrn16_2_variant",
            "vgg_downsample",
            "vgg_head",
            "pyramidnet_taps",
            "resnet_head",
            "hidden_init",
            "vggsnn_init",
        )
        values = {name: getattr(self, name) for name in shared}
        values["width"] = self.teacher_width or self.width
        values["reshuffle"] = self.teacher_reshuffle
        if self.dataset in EVENT_DATASETS:
            values["timesteps"] = self.timesteps
        if self.subset_teacher == "same_subset":
            values["train_fraction"] = self.train_fraction
        if self.noise_teacher == "same_noise":
            values["label_noise"] = self.label_noise
        return RunConfig(method="teacher", seed=self.teacher_seed, epochs=self.teacher_epochs or None, **values)

    @functools.cached_property
    def identity(self) -> str:
        """Ten hexadecimal digits: hash of the fields that matter to this run, and of its teacher's.

        A field at a default that no preset decides, or at the value that it `was` before it existed, is left out, so
        that a field added later leaves every recorded run its name.
        """
        teacher, fields = self.teacher_config(), _fields()
        usual = {name: f.metadata["was"] if f.default is None else f.default for name, f in fields.items()}
        chosen = {
            name: value
            for name, value in self.to_dict(relevant=True).items()
            if usual[name] is None or getattr(self, name) != usual[name]
        }
        content = [chosen, teacher.identity if teacher else self.teacher_run]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]

    @property
    def name(self) -> str:
        """Name of the run's folder, readable and unique."""
        steps = [f"T{self.timesteps}"] if self.takes_steps else []
        parts = [self.dataset, self.student, self.teacher, self.method, *steps, f"s{self.seed}", self.identity]
        return "-".join(p for p in parts if p)

    @property
    def arguments(self) -> list[str]:
        """The shortest ``key=value`` arguments that give this config."""
        first = ("dataset", "student", "teacher", "method", "timesteps", "variant", "scale", "seed")
        values, default = self.to_dict(), RunConfig().to_dict()
        if self.method == "teacher":
            first = tuple(n for n in first if n != "student" and (n != "timesteps" or self.takes_steps))
            default |= {"student": ""} | ({} if self.takes_steps else {"timesteps": self.timesteps})
        chosen = {n: values[n] for n in first if values[n] != default[n]}
        base = RunConfig(**chosen).to_dict()
        chosen |= {n: v for n, v in values.items() if v != base[n]}
        return [f"{n}={json.dumps(v) if not isinstance(v, str) else v}" for n, v in chosen.items()]

    @property
    def command(self) -> str:
        """Command that makes this run."""
        return shlex.join(["python", "-m", "sastc", "train", *self.arguments])

    def learning_rate_at(self, epoch: float) -> float:
        """Learning rate so many epochs after the start: 2.5 is the middle of the third.

        Milestones are rounded to whole epochs.
        """
        if self.schedule == "triangle":
            done = epoch / self.epochs
            rising = done < self.schedule_peak or self.schedule_peak == 1
            return self.learning_rate * (done / self.schedule_peak if rising else (1 - done) / (1 - self.schedule_peak))
        drops = sum(epoch >= round(m * self.epochs) for m in self.milestones)
        return self.learning_rate * self.lr_drop**drops

    def beta_at(self, epoch: int) -> float:
        """Weight β of the feature loss in a zero-based epoch."""
        thirds = self.beta_schedule == "thirds" or (self.beta_schedule == "preset" and self.dataset in EVENT_DATASETS)
        return self.beta * (0.01, 0.1, 1.0)[3 * epoch // self.epochs] if thirds else self.beta


@functools.cache
def _fields() -> dict[str, dataclasses.Field]:
    return {field.name: field for field in dataclasses.fields(RunConfig)}


@functools.cache
def _text_fields() -> frozenset[str]:
    return frozenset(name for name, field in RunConfig.fields().items() if field.type is str)


def close_matches(name: Any, names: Collection[str]) -> list[str]:
    """At most three of `names` that look like `name`."""
    return difflib.get_close_matches(name[:80] if isinstance(name, str) else shown(name), names, n=3)


def check_name(name: str, also: Collection[str] = ()) -> None:
    """Raise a :class:`ConfigError` that names close matches unless `name` is a field, or in `also`."""
    if name not in _fields() and name not in also:
        names = [*_fields(), *also]
        close = close_matches(name, names)
        hint = f"did you mean {' or '.join(close)}?" if close else f"must be one of {', '.join(names)}"
        raise ConfigError(f"unknown field {shown(name)}: {hint}")


def parse_arguments(arguments: list[str], also: Collection[str] = ()) -> dict[str, Any]:
    """``["timesteps=3", "milestones=[0.5, 0.75]"]`` as a dictionary; values are read by :func:`read_yaml`.

    Names must be fields of :class:`RunConfig`, or be in `also`.
    """
    values = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals:
            raise ConfigError(f"{shown(argument)}: must be key=value")
        if name not in also:
            check_name(name)
        if name in values:
            raise ConfigError(f"{shown(argument)}: {name} is given twice")
        if name in _text_fields():
            values[name] = text
            continue
        try:
            value = read_yaml(text)
        except ValueError as error:
            raise ConfigError(f"{name}={shown(text)}: cannot be read: {error}") from None
        values[name] = tuple(value) if isinstance(value, list) else value
    return values


class _Loader(yaml.SafeLoader):
    """YAML whose scalars mean what they look like; see :func:`read_yaml`."""

    yaml_implicit_resolvers: ClassVar[dict] = {}

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in keys if keys.count(key) > 1 and key != "<<"]:
            raise yaml.MarkedYAMLError(problem=f"{shown(twice[0])} is given twice", problem_mark=node.start_mark)
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in _text_fields():
                for scalar in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if isinstance(scalar, yaml.ScalarNode):
                        scalar.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)

    def decimal(self, node: yaml.ScalarNode) -> int:
        return int(self.construct_scalar(node))

    def number(self, node: yaml.ScalarNode) -> float:
        return float(re.sub(r"\.(?=inf|nan)", "", self.construct_scalar(node).lower()))


_DIGITS = "[0-9]+(_[0-9]+)*"
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", list("yYnNtTfFoO")),
    ("int", rf"[-+]?{_DIGITS}", list("-+0123456789")),
    (
        "float",
        rf"[-+]?(({_DIGITS}\.?|({_DIGITS})?\.{_DIGITS})([eE][-+]?{_DIGITS})?|\.?(inf|Inf|INF))|\.?(nan|NaN|NAN)",
        list("-+0123456789.iInN"),
    ),
    ("merge", "<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.decimal)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.number)


def read_yaml(text: str) -> Any:
    """The content of a text in YAML, as the command line and experiment files mean it.

    Numbers are decimal: ``010`` is ten and ``1e-3`` a number, where YAML 1.1 has eight and a text; ``0x10``, ``1:30``
    and dates are text. The value of a field that is text stays as it is written (``stm_log_base: 10``). A name given
    twice in one mapping is an error.

    Raises
    ------
    ValueError
        The text is not YAML; the message says where.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ValueError(f"{error.problem or error.context}{where}") from None
    except Exception as error:  # of PyYAML's constructors: an explicit tag on another value, brackets nested too deep
        raise ValueError(" ".join(f"{type(error).__name__}: {error}".split())) from None


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


def _check(field: dataclasses.Field, value: Any) -> Any:
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


# Presets. Published values: the paper's experimental setup and the released code's scripts.
_PUBLISHED = {
    "cifar": dict(epochs=240, batch_size=128, learning_rate=0.01, weight_decay=5e-4, milestones=(0.625, 0.75, 0.875)),
    "imagenet": dict(epochs=90, batch_size=256, learning_rate=0.1, weight_decay=1e-4, milestones=(1 / 3, 2 / 3)),
    # The batch size of event data is not given: CIFAR's.
    "event": dict(
        epochs=300, batch_size=128, learning_rate=0.1, weight_decay=5e-4, milestones=(0.5, 0.6, 0.7, 13 / 15)
    ),
    # paper: silent  released: SGD 0.1, 300 epochs, drops at 150, 180 and 210
    "teacher": dict(epochs=300, batch_size=128, learning_rate=0.1, weight_decay=5e-4, milestones=(0.5, 0.6, 0.7)),
}
# On the digits and at slim scale, ours: the feature loss starts about as large as the KD loss; 1300 makes narrow
# networks diverge.
_BETA = {"cifar10": 1300.0, "cifar100": 700.0, "imagenet": 50.0, "digits": 5.0}
# Of the last third; most of learning rate times beta falls into the second, where the digits' is a tenth of this one's.
_BETA |= {"digits_dvs": 50.0, "nmnist": 1.0, "dvs_gesture": 1.0, "dvs_cifar10": 1.0}
_IMAGE_SIZE = {"digits": 12, "cifar10": 32, "cifar100": 32, "imagenet": 224, "imagefolder": 224}
_IMAGE_SIZE |= {"digits_dvs": 8, "nmnist": 34, "dvs_gesture": 64, "dvs_cifar10": 48}
_SIZE = {
    # Schedules as short as they can be for the question "does it all work?"; they prove nothing about the paper.
    "quick": dict(epochs=10, batch_size=32, width=1 / 16, learning_rate=0.05, stm_batches=0),
    # As much of CIFAR-10 as two CPU cores learn in minutes a run. Ours: a learning rate for a short schedule.
    "slim": dict(epochs=12, batch_size=128, width=1 / 8, train_subset=10_000, learning_rate=0.05)
    | dict(precision="bf16", memory_format="channels_last", beta=10.0),
    # All images and a teacher above 90 %, as near to the paper as two CPU cores come in an hour a run. Ours: a short
    # schedule, whose learning rate and beta were chosen on validation images.
    "quarter": dict(epochs=12, batch_size=128, width=1 / 4, learning_rate=0.1, weight_decay=5e-4)
    | dict(schedule="triangle", nesterov=True, decay_norms=False, precision="bf16", memory_format="channels_last")
    | dict(beta=10.0),
    # paper: silent  released: PyTorch's default, which on the paper's GPUs (RTX 3090, A800) is tf32
    "paper": dict(width=1.0, precision="tf32"),
}
# Quick runs on events: the paper's learning rate of 0.1 scaled from its batches of 128 images to 32; how the rest was
# chosen, on validation images, is said in experiments/table6.yaml.
_QUICK_EVENTS = dict(epochs=9, width=1 / 8, learning_rate=0.025, stm_batches=4)


def _presets(config: RunConfig) -> dict[str, Any]:
    """Values of the fields that were left open."""
    large = config.dataset in ("imagenet", "imagefolder")
    event = config.dataset in EVENT_DATASETS
    kind = "imagenet" if large else "event" if event else "teacher" if config.method == "teacher" else "cifar"
    values = dict(_PUBLISHED[kind])
    if config.dataset == "dvs_gesture":
        values |= dict(batch_size=32)  # ours: 16 frames of 64x64 an instance, a quarter of 128 fits a 24 GB GPU
    released = config.variant == "released"
    if released and kind == "cifar":
        values |= dict(batch_size=64)  # paper: 128  released: 64
    values |= _SIZE.get(config.scale, {})
    if config.dataset == "nmnist" and config.scale == "slim":
        values |= dict(train_subset=0)  # ours: all there are, of a part of the set too
    if event:  # the paper's learning rate at every scale but the quick one
        values |= _QUICK_EVENTS if config.scale == "quick" else dict(learning_rate=0.1)
    if config.scale == "quarter" and config.method == "teacher":
        values |= dict(epochs=16)
    batch_size = config.batch_size if config.batch_size is not None else values["batch_size"]
    published = not released or event or config.dataset == "digits"
    beta = _BETA.get(config.dataset, 1300.0) if published else 800.0  # released: 800
    return values | dict(
        train_subset=values.get("train_subset", 0),
        precision=values.get("precision", "fp32"),
        memory_format=values.get("memory_format", "contiguous"),
        schedule=values.get("schedule", "steps"),
        nesterov=values.get("nesterov", False),
        decay_norms=values.get("decay_norms", True),
        stm_batches=values.get("stm_batches", 8),
        image_size=_IMAGE_SIZE.get(config.dataset),
        mlp_dim=batch_size,
        # paper: 0.3  released: 1.0, and so in narrow networks, where spiking ResNets do not learn with 0.3
        gamma=1.0 if released or config.scale != "paper" else 0.3,
        # paper: silent  released: PyTorch's default, with which no hidden neuron fires at first
        hidden_init="released" if released else "balanced",
        beta=values.get("beta", beta),
        # paper: silent  released: a partial batch is dropped by SASTC alone
        partial_batch="keep" if released and config.method != "sastc" else "drop",
        # paper: silent  released: the student's script repeats one order, the teacher's shuffles
        reshuffle=not released or config.method == "teacher",
        resnet18_variant="standard" if large or event else "released",
        checkpoint="blocks" if large and config.scale == "paper" else "none",  # a step then fits a 24 GB GPU
        headline="best" if released else "last",
    )
