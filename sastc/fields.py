"""The settings of a run, one a line: its default, its meaning, what it applies to and what is allowed. No torch."""

import dataclasses
import functools
from collections.abc import Collection
from types import MappingProxyType
from typing import Any

from sastc import methods
from sastc.checks import ConfigError, option, shown, suggestion
from sastc.facts import DATASETS
from sastc.methods import REGISTRY

MODELS = (
    "vgg11", "vgg13", "vggsnn", "resnet18", "resnet19", "resnet34", "resnet32x4",
    "wrn16_2", "wrn28_4", "wrn40_2", "pyramidnet20",
)  # fmt: skip
SCALES = ("quick", "slim", "quarter", "paper")
VARIANTS = ("paper", "released")

STUDENT = tuple(REGISTRY)  # methods that train a spiking student
METHODS = tuple(name for name, method in REGISTRY.items() if method.place is not None)  # of the paper's tables
DISTIL = tuple(name for name, method in REGISTRY.items() if method.needs_teacher)  # that need a teacher
EVERY = ("teacher", *STUDENT)
GROUPS = {  # of the fields, with their titles
    "run": "What is run", "training": "Training", "networks": "Networks", "neuron": "Neuron (Eq. 9-11)",
    "losses": "Losses (Eq. 6-8)", "calibration": "Calibration (Eq. 2-5)", "data": "Data", "events": "Event data",
    "teacher": "Teacher", "measures": "Measures",
}  # fmt: skip

run = functools.partial(option, group="run")
training = functools.partial(option, group="training")
network = functools.partial(option, group="networks", teacher=True)
student_network = functools.partial(option, group="networks", applies="students")
neuron = functools.partial(option, group="neuron", applies="students")
loss = functools.partial(option, group="losses", applies="methods")
calibration = functools.partial(option, group="calibration", applies="methods")
data = functools.partial(option, group="data")
event = functools.partial(option, group="events", teacher=True)
teaching = functools.partial(option, group="teacher", applies="students")
measure = functools.partial(option, group="measures", applies="students")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fields:
    """All settings but the options of methods; the base of :class:`~sastc.config.RunConfig`."""

    dataset: str = run("digits", "dataset", choices=DATASETS, teacher=True)
    student: str = run(
        "vgg11", "spiking student; empty for method teacher", choices=("", *MODELS), own="file.py:function"
    )
    teacher: str = run(
        "resnet19",
        "ANN teacher; a baseline only measures the mismatch, or has none",
        choices=("", *MODELS),
        own="file.py:function",
        teacher=True,
    )
    method: str = run(
        "sastc", "how the student is trained; teacher: the ANN itself", choices=EVERY, own="file.py:Class"
    )
    timesteps: int = run(2, "time steps T of the student, and frames of event data", low=1, applies="students")
    variant: str = run("paper", "presets of the printed text, or of the released code", choices=VARIANTS, teacher=True)
    scale: str = run("quick", "preset of size and schedule", choices=SCALES, teacher=True)
    seed: int = run(0, "seed of initial weights, data order and augmentation", low=0, high=2**64 - 1)

    epochs: int | None = training(None, "training epochs", low=1)
    batch_size: int | None = training(None, "instances per step", low=2)
    learning_rate: float | None = training(None, "learning rate of SGD at its highest", low=0, open_low=True)
    schedule: str | None = training(
        None,
        "learning rate over the training: drops at the milestones (steps), or a straight rise up to schedule_peak and "
        "a straight fall to zero, step by step (triangle)",
        choices=("steps", "triangle"),
        was="steps",
    )
    schedule_peak: float = training(0.2, "share of the steps at which the triangle is highest", low=0, high=1)
    momentum: float = training(0.9, "momentum of SGD", low=0, high=1)
    nesterov: bool | None = training(None, "Nesterov's momentum", was=False)
    weight_decay: float | None = training(None, "L2 penalty of SGD", low=0)
    decay_norms: bool | None = training(None, "L2 penalty on batch norms and biases too", was=True)
    milestones: tuple[float, ...] | None = training(None, "shares of the epochs where the rate drops", low=0, high=1)
    lr_drop: float = training(0.1, "factor on the learning rate at each milestone", low=0, high=1, open_low=True)
    early_stop: int = training(0, "stop after so many epochs without a better test accuracy; 0: never", low=0)
    precision: str | None = training(
        None,
        "arithmetic of the networks (losses are fp32); tf32 differs from fp32 in convolutions on GPUs that have it",
        choices=("fp32", "tf32", "bf16"),
        teacher=True,
    )
    memory_format: str | None = training(
        None, "layout of images and convolutions in memory", choices=("contiguous", "channels_last"), teacher=True
    )
    partial_batch: str | None = training(
        None, "last batch of an epoch if it is not full: drop or keep it", choices=("drop", "keep")
    )
    reshuffle: bool | None = training(None, "draw a new order each epoch, or keep the first")
    accumulate: int = training(
        1, "micro-batches of a step, to save memory; batch norms and similarities then see one of them", low=1
    )
    checkpoint: str | None = training(
        None,
        "blocks: keep only the inputs of blocks and projectors, and compute the rest again in the backward pass; the "
        "same numbers in less memory and more time",
        choices=("none", "blocks"),
        exact=True,
    )
    batch_norm: str = training(
        "global",
        "training statistics of batch norms when several processes share a batch: of all, or of each process's share",
        choices=("global", "per_process"),
    )

    width: float | None = network(None, "factor on both networks' channels", low=0, open_low=True, teacher=False)
    teacher_width: float = student_network(0.0, "factor on the teacher's channel counts; 0: that of width", low=0)
    image_size: int | None = network(None, "height and width of the images, in pixels", low=8)
    resnet18_variant: str | None = network(
        None,
        "ResNet-18: [3,3,2] blocks in three stages (released) or [2,2,2,2] (standard)",
        choices=("released", "standard"),
    )
    wrn16_2_variant: str = network(
        "released",
        "WRN-16-2: the released bottleneck network or the published one",
        choices=("released", "wide_resnet"),
    )
    vgg_downsample: str = network("stride", "VGG-11: stride-2 convolutions or pooling", choices=("stride", "pool"))
    vgg_head: str = network("stacked", "VGG-11: three stacked linear layers or one", choices=("stacked", "single"))
    resnet_head: str = network(
        "hidden", "spiking ResNets: 256 LIF neurons before the last layer, or none", choices=("hidden", "single")
    )
    hidden_init: str | None = network(
        None,
        "first weights of those hidden neurons: large enough that some fire (balanced), or PyTorch's default",
        choices=("balanced", "released"),
    )
    pyramidnet_taps: str = network(
        "released", "PyramidNet's tapped stages: stage 2 is skipped in the released code", choices=("released", "all")
    )
    vggsnn_init: str = network(
        "pytorch", "VGGSNN's first convolution weights: PyTorch's default or TET's (he)", choices=("pytorch", "he")
    )
    taps: str = student_network(
        "stages", "candidate layers: stage outputs, or the stem too", choices=("stages", "stem_and_stages")
    )
    student_tap: str = student_network(
        "spikes", "a student layer's features: spikes, or potentials before the reset", choices=("spikes", "membrane")
    )
    output: str = student_network(
        "mean_current",
        "student logits: mean over T of the last layer's output, or of a leaky membrane fed by it",
        choices=("mean_current", "leaky_membrane"),
    )
    tdbn_alpha: float = student_network(0.0, "batch norms normalise to alpha·V_th (tdBN); 0: plain batch norms", low=0)

    decay: float = neuron(0.5, "leak λ of the membrane", low=0, high=1, open_low=True)
    threshold: float = neuron(1.0, "firing threshold V_th", low=0, open_low=True)
    gamma: float | None = neuron(None, "width γ of the surrogate gradient", low=0, open_low=True)
    surrogate: str = neuron("triangle", "surrogate gradient", choices=("triangle", "rectangle", "sigmoid", "atan"))
    reset: str = neuron("hard", "reset to zero, or by subtraction", choices=("hard", "soft"))
    detach_reset: bool = neuron(False, "no gradient through the spike in the reset")

    temperature: float = loss(4.0, "temperature α of Eq. 8", low=0, open_low=True)
    kl_weight: float = loss(1.0, "weight of the KL term of Eq. 8", low=0)
    ce_weight: float = loss(1.0, "weight of the cross-entropy term of Eq. 8", low=0)
    beta: float | None = loss(None, "weight β of the feature loss in Eq. 7", low=0)
    beta_schedule: str = loss(
        "preset",
        "β over the epochs: constant, or 0.01, 0.1 and 1 times β in its thirds; preset: thirds with event data alone",
        choices=("preset", "constant", "thirds"),
    )
    feature_pairs: str = loss(
        "one_to_one", "feature KD's (student, teacher) layers: one_to_one, all, last, or such as 1-1,2-3"
    )
    reduction: str = loss("mean", "Eq. 6: mean over T, B and student layers, or the bare sum", choices=("mean", "sum"))

    mlp_dim: int | None = calibration(None, "input width of the query and key MLPs, at least batch_size", low=2)
    qk_norm: bool = calibration(True, "L2-normalise queries and keys")
    score_scale: float = calibration(1.0, "factor on the scores in Eq. 5")
    mlp_sharing: str = calibration("per_layer", "one MLP for each layer, or for all", choices=("per_layer", "shared"))
    sim_norm: str = calibration("none", "normalisation of the similarity rows", choices=("none", "row_l2"))
    sim_order: str = calibration("batch", "order of the similarity rows' entries", choices=("batch", "sorted"))
    detach_sim: bool = calibration(False, "no gradient to the student through the attention")
    similarity: str = calibration(
        "global",
        "similarity matrices (and target_norm) when several processes share a batch: rows of the whole batch, or of "
        "each process's share",
        choices=("global", "per_process"),
        applies="students",
    )
    attention: str = calibration(
        "learned",
        "where the weights come from: learned, or controls of ours: MLPs that stay as they start (untrained), 1/A "
        "(uniform), fixed draws within the bounds (random), a softmax of the layers' CKA (cka), all on the teacher "
        "layer with the smallest (easiest) or largest (hardest) distance of each instance, step and student layer",
        choices=("learned", "untrained", "uniform", "random", "cka", "easiest", "hardest"),
    )
    target_norm: str = calibration(
        "none", "ours: standardise each teacher layer's features before they are targets", choices=("none", "layer")
    )
    target_scale: tuple[float, ...] = calibration(
        (), "ours: factors on the teacher layers' features as targets, one a layer; empty: none", low=0, open_low=True
    )
    resize_student: str = calibration("max", "pooling of a student map larger than its target", choices=("max", "avg"))
    small_student: str = calibration(
        "pool_target", "a student map smaller than its target", choices=("pool_target", "upsample_student")
    )
    projector_bn: str = calibration("per_step", "batch-norm in the projectors", choices=("per_step", "folded", "none"))

    train_subset: int | None = data(None, "train on a stratified subset of so many images; 0: all", low=0, teacher=True)
    train_fraction: float = data(1.0, "share of each class's training images", low=0, high=1, open_low=True)
    label_noise: float = data(0.0, "share of training labels changed to another class", low=0, high=1)
    data_seed: int = data(0, "seed of subset, label noise and validation images", low=0, teacher=True)
    validation: float = data(
        0.0, "share of each class's training images that is held out and tested on", low=0, high=0.5, teacher=True
    )

    binning: str = event("time", "frames of equal time, or of equally many events", choices=("time", "count"))
    event_augment: str = event(
        "roll",
        "training frames of event data: moved by whole pixels with the other side (roll) or zeros (shift) coming in, "
        "and mirrored where that keeps the class; or none",
        choices=("none", "shift", "roll"),
    )
    teacher_input: str = event(
        "mean_frame",
        "how the ANN sees event data: the mean of the frames, or each step's frame, compared with the student's step",
        choices=("mean_frame", "per_step"),
    )

    teacher_seed: int = teaching(0, "seed of the teacher", low=0, high=2**64 - 1)
    # exact for the student; it is a part of the teacher's identity, and so of the run's
    teacher_reshuffle: bool = teaching(True, "the teacher draws a new order each epoch", exact=True)
    teacher_epochs: int = teaching(0, "epochs of the teacher; 0: the preset's", low=0)
    noise_teacher: str = teaching("clean", "teacher of a student with noisy labels", choices=("clean", "same_noise"))
    subset_teacher: str = teaching(
        "same_subset", "teacher of a student with fewer images", choices=("same_subset", "full")
    )
    teacher_run: str = teaching("", "name of a recorded teacher run to use instead of the preset's")

    stm_batches: int | None = measure(None, "training batches an epoch for the mismatch score; 0: all", low=0)
    stm_pairs: str = measure("all", "candidate pairs of the mismatch score (Eq. 1)")
    stm_distance: str = measure("mse", "distance of Eq. 1", choices=("mse", "euclidean"))
    stm_log_base: str = measure("e", "logarithm of the mismatch score", choices=("e", "2", "10", "none"))
    stm_weighted: bool = measure(False, "weight the mismatch by the attention (SASTC)", applies="methods")
    probe_batches: int = measure(2, "test batches on which attention and CKA are recorded each epoch", low=1)
    attention_steps: int = measure(
        0,
        "record attention, distances and the gradients of both losses at each of the first 20 training steps and at "
        "every so many after; 0: none",
        low=0,
        applies="methods",
    )
    fisher_samples: int = measure(0, "training images for the temporal Fisher information of each epoch", low=0)
    headline: str | None = measure(
        None, "accuracy to report: of the last or of the best epoch", choices=("last", "best"), applies="all"
    )


@functools.cache
def all_fields() -> dict[str, dataclasses.Field]:
    """Fields by name; ``applies`` in their metadata becomes the names of the methods they apply to."""
    fields = {field.name: field for field in dataclasses.fields(Fields)}
    for name, field in fields.items():
        listing = tuple(method for method, kind in REGISTRY.items() if name in kind.fields)
        scope = field.metadata["applies"]
        applies = {"all": EVERY, "students": STUDENT, "methods": listing}[scope]
        field.metadata = MappingProxyType({**field.metadata, "applies": applies, "scope": scope})
    return fields


def choices(name: str) -> tuple[str, ...]:
    """What a field may be."""
    return all_fields()[name].metadata["choices"]


def method_options(method: Any) -> dict[str, dataclasses.Field]:
    """The options that a method brings beside the fields of a config; none for a text that names no method."""
    kind = methods.find(method)
    return kind.options if kind is not None else {}


@functools.cache
def text_fields() -> frozenset[str]:
    """Names of the fields whose values are text."""
    return frozenset(name for name, field in all_fields().items() if field.type is str)


def check_name(name: str, also: Collection[str] = ()) -> None:
    """Raise a :class:`ConfigError` that names close matches unless `name` is a field, or in `also`."""
    if name not in all_fields() and name not in also:
        names = [*all_fields(), *also]
        hint = suggestion(name, names, f"must be one of {', '.join(names)}")
        raise ConfigError(f"unknown field {shown(name)}: {hint}")
