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
from sastc.models.resnet import RESNET18, RESNET19, bottleneck, resnet
from sastc.models.vgg import vgg11, vgg13, vggsnn
from sastc.models.wide_resnet import wide_resnet
from sastc.neurons import LIF

__all__ = ["MODELS", "OPTIONS", "Network", "create_model"]

MODELS: dict[str, Callable[..., Network]] = {
    "vgg11": lambda recipe, o: vgg11(recipe, o["vgg_downsample"], o["vgg_head"]),
    "vgg13": lambda recipe, o: vgg13(recipe),
    "vggsnn": lambda recipe, o: vggsnn(recipe, o["vggsnn_init"]),
    "resnet18": lambda recipe, o: resnet(recipe, *RESNET18[o["resnet18_variant"]], **_head(o)),
    "resnet19": lambda recipe, o: resnet(recipe, *RESNET19, **_head(o)),
    "resnet34": lambda recipe, o: resnet(recipe, (3, 4, 6, 3), (64, 128, 256, 512), **_head(o)),
    # As in RepDistiller: the CIFAR ResNet of depth 32 with four times the channels (twice in the stem).
    "resnet32x4": lambda recipe, o: resnet(recipe, (5, 5, 5), (64, 128, 256), stem=32, **_head(o)),
    # paper: cites Wide ResNet  released: a ResNet of bottlenecks with 512, 1024 and 2048 outputs
    "wrn16_2": lambda recipe, o: (
        resnet(recipe, (2, 1, 1), (128, 256, 512), branch=bottleneck, **_head(o))
        if o["wrn16_2_variant"] == "released"
        else wide_resnet(recipe, 16, 2, **_head(o))
    ),
    "wrn28_4": lambda recipe, o: wide_resnet(recipe, 28, 4, **_head(o)),
    "wrn40_2": lambda recipe, o: wide_resnet(recipe, 40, 2, **_head(o)),
    "pyramidnet20": lambda recipe, o: pyramidnet(recipe, 20, 200, o["pyramidnet_taps"], **_head(o)),
}

# Architecture options and their allowed values, the default first.
_NAMES = "resnet18_variant wrn16_2_variant vgg_downsample vgg_head resnet_head hidden_init pyramidnet_taps vggsnn_init"
OPTIONS = {name: choices(name) for name in _NAMES.split()}


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
        :data:`OPTIONS` of the architectures, which ``python -m sastc explain`` describes; those of other networks are
        checked and ignored.

    Weights are drawn from torch's global generator.

    Raises
    ------
    ValueError
        A value that is not allowed; the message names the field, the value and the choices.
    """
    check_one_of("name", name, MODELS)
    texts: dict[str, Any] = dict(taps=taps, tap=tap, output=output, frames=frames)
    fields = dict(tap="student_tap", frames="teacher_input")  # what they are called in a config
    for key, text in texts.items():
        check_one_of(key, text, choices(fields.get(key, key)))
    for key, value in options.items():
        check_one_of("option", key, OPTIONS)
        check_one_of(key, value, OPTIONS[key])
    sizes: dict[str, Any] = dict(num_classes=num_classes, in_channels=in_channels, image_size=image_size)
    sizes = {key: check_integer(key, size, 1) for key, size in sizes.items()}
    timesteps, width = check_integer("timesteps", timesteps, 1), check_number("width", width, 0, open_low=True)
    if tdbn_alpha is not None:
        tdbn_alpha = check_number("tdbn_alpha", tdbn_alpha, 0, open_low=True)

    make_neuron = _neuron_factory(neuron, neuron_options or {})
    example = make_neuron()
    check("neuron", neuron, isinstance(example, nn.Module), f"a function that returns an nn.Module, not {example!r}")
    spiking = bool(getattr(example, "spiking", not type(example).__module__.startswith("torch.nn.")))
    recipe = Recipe(
        name,
        make_neuron,
        spiking,
        **sizes,
        **texts,
        width=width,
        timesteps=timesteps if spiking else None,
        leak=getattr(example, "decay", 0.5),
        norm_gain=tdbn_alpha * getattr(example, "threshold", 1.0) if spiking and tdbn_alpha is not None else 1.0,
    )
    return MODELS[name](recipe, {key: values[0] for key, values in OPTIONS.items()} | options)


def _head(options: dict[str, str]) -> dict[str, Any]:
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
