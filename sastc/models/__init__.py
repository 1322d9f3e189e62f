"""Networks of the paper, each written once and made ANN or SNN by the neuron it is given."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from sastc.checks import check, check_integer, check_number, check_one_of
from sastc.fields import choices
from sastc.models.layers import Recipe
from sastc.models.network import Network
from sastc.models.pyramidnet import pyramidnet
from sastc.models.resnet import resnet18, resnet19, resnet32x4, resnet34
from sastc.models.vgg import vgg11, vgg13
from sastc.models.vggsnn import vggsnn
from sastc.models.wide_resnet import wide_resnet, wrn16_2
from sastc.neurons import LIF

__all__ = ["MODELS", "OPTIONS", "Network", "create_model"]

MODELS: dict[str, Callable[..., Network]] = {
    "vgg11": lambda recipe, o: vgg11(recipe, o["vgg_downsample"], o["vgg_head"]),
    "vgg13": lambda recipe, o: vgg13(recipe),
    "vggsnn": lambda recipe, o: vggsnn(recipe, o["vggsnn_init"]),
    "resnet18": lambda recipe, o: resnet18(recipe, o["resnet18_variant"], **_head(o)),
    "resnet19": lambda recipe, o: resnet19(recipe, **_head(o)),
    "resnet34": lambda recipe, o: resnet34(recipe, **_head(o)),
    "resnet32x4": lambda recipe, o: resnet32x4(recipe, **_head(o)),
    "wrn16_2": lambda recipe, o: wrn16_2(recipe, o["wrn16_2_variant"], **_head(o)),
    "wrn28_4": lambda recipe, o: wide_resnet(recipe, 28, 4, **_head(o)),
    "wrn40_2": lambda recipe, o: wide_resnet(recipe, 40, 2, **_head(o)),
    "pyramidnet20": lambda recipe, o: pyramidnet(recipe, 20, 200, o["pyramidnet_taps"], **_head(o)),
}

# Architecture options and their allowed values, the default first.
OPTIONS = {
    name: choices(name)
    for name in ("resnet18_variant", "wrn16_2_variant", "vgg_downsample", "vgg_head", "resnet_head", "hidden_init",
                 "pyramidnet_taps", "vggsnn_init")
}  # fmt: skip


def create_model(
    name: str,
    neuron: str | Callable[..., nn.Module] = "lif",
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    width: float = 1.0,
    timesteps: int = 2,
    neuron_options: dict[str, Any] | None = None,
    taps: str = "stages",
    tap: str = "spikes",
    output: str = "mean_current",
    tdbn_alpha: float | None = None,
    frames: str = "mean_frame",
    **options: str,
) -> Network:
    """Build a network.

    Parameters
    ----------
    name : str
        One of :data:`MODELS`.
    neuron : {"lif", "relu"} or callable
        An SNN of :class:`sastc.neurons.LIF`, an ANN of ReLUs, or what a callable builds, one for every layer.
        Modules of ``torch.nn`` make an ANN; any other is taken as spiking and called with the whole sequence
        (T, B, ...), unless it has an attribute ``spiking`` that says otherwise.
    num_classes, in_channels : int
        Outputs N and image channels C.
    image_size : int
        Side of the images in pixels. It picks the residual networks' stem (ImageNet's from 128 on), VGG-13's last
        pool (from 64 on) and the size of VGG-11's first linear layer.
    width : float
        Factor on all channel counts and hidden layers, at least 4 of each.
    timesteps : int
        T for static images; ANNs ignore it, as they do `output` and `tdbn_alpha`.
    neuron_options : dict, optional
        Keyword arguments of the LIF or the callable; "relu" takes none and ignores them.
    taps : {"stages", "stem_and_stages"}
        Candidate layers: the stage outputs, or the stem's as well.
    tap : {"spikes", "membrane"}
        What a tapped layer of an SNN shows: its output, or the potential u^t of its last neuron before the reset.
    output : {"mean_current", "leaky_membrane"}
        Logits of an SNN: mean over T of the last linear layer, or of a membrane that it charges, with the neuron's
        leak and without reset.
    tdbn_alpha : float, optional
        Initial scale α·V_th of all batch norms of an SNN (Zheng et al. 2021); None: 1.
    frames : {"mean_frame", "per_step"}
        How an ANN sees a sequence (T, B, C, H, W): its mean over time, an image; or each frame for itself, with
        features (T, B, C, H, W) and logits that are the mean over T.
    **options : str
        Architecture options; those of other networks are checked and ignored. `resnet18_variant` ("released",
        "standard"), `wrn16_2_variant` ("released", "wide_resnet"), `vgg_downsample` ("stride", "pool") and `vgg_head`
        ("stacked", "single") of VGG-11, `resnet_head` of spiking residual networks ("hidden": 256 neurons before the
        last layer, "single") and `hidden_init` of that layer's weights ("balanced", "released": PyTorch's default, too
        small for γ = 0.3), `pyramidnet_taps` ("released": without stage 2, "all"), `vggsnn_init` of its convolutions'
        weights ("pytorch", "he": as in TET).

    Returns
    -------
    Network
        With weights drawn from torch's global generator.

    Raises
    ------
    ValueError
        A value that is not allowed; the message names the field, the value and the choices.
    """
    for key, value, allowed in (
        ("name", name, MODELS),
        ("taps", taps, choices("taps")),
        ("tap", tap, choices("student_tap")),
        ("output", output, choices("output")),
        ("frames", frames, choices("teacher_input")),
        *(("option", key, OPTIONS) for key in options),
        *((key, value, OPTIONS[key]) for key, value in options.items() if key in OPTIONS),
    ):
        check_one_of(key, value, allowed)
    sizes = dict(num_classes=num_classes, in_channels=in_channels, image_size=image_size)
    sizes = {key: check_integer(key, size, 1) for key, size in sizes.items()}
    timesteps, width = check_integer("timesteps", timesteps, 1), check_number("width", width, 0, open_low=True)
    if tdbn_alpha is not None:
        tdbn_alpha = check_number("tdbn_alpha", tdbn_alpha, 0, open_low=True)

    make_neuron = _neuron_factory(neuron, neuron_options or {})
    example = make_neuron()
    check("neuron", neuron, isinstance(example, nn.Module), f"a function that returns an nn.Module, not {example!r}")
    spiking = bool(getattr(example, "spiking", not type(example).__module__.startswith("torch.nn.")))
    recipe = Recipe(
        name=name,
        make_neuron=make_neuron,
        spiking=spiking,
        **sizes,
        width=width,
        timesteps=timesteps if spiking else None,
        taps=taps,
        tap=tap,
        output=output,
        leak=getattr(example, "decay", 0.5),
        norm_gain=tdbn_alpha * getattr(example, "threshold", 1.0) if spiking and tdbn_alpha is not None else 1.0,
        frames=frames,
    )
    return MODELS[name](recipe, {key: values[0] for key, values in OPTIONS.items()} | options)


def _head(options: dict[str, str]) -> dict[str, str]:
    return {"head": options["resnet_head"], "hidden_init": options["hidden_init"]}


def _neuron_factory(neuron: str | Callable[..., nn.Module], options: dict[str, Any]) -> Callable[[], nn.Module]:
    if neuron == "relu":
        return nn.ReLU
    if neuron == "lif":
        allowed = inspect.signature(LIF).parameters
        for key in options:
            check("neuron_options", key, key in allowed, f"made of {', '.join(allowed)}")
        return lambda: LIF(**options)
    factory = callable(neuron) and not isinstance(neuron, nn.Module)
    check("neuron", neuron, factory, "'lif', 'relu' or a function that returns a new nn.Module")
    return lambda: neuron(**options)  # type: ignore[operator]
