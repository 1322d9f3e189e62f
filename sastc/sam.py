"""Where a network looks: Spike Activation Map of an SNN (Kim & Panda 2021), Grad-CAM of its ANN teacher."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sastc.checks import check, check_number
from sastc.fisher import evaluation_mode
from sastc.models.network import Network


def spike_activation_map(model: nn.Module, x: Tensor, *, layer: str | None = None, gamma: float = 0.5) -> Tensor:
    """Spike Activation Map ``(T, B, H, W)`` at every time step, see :func:`contribution_map`.

    It has the layer's size; :func:`heatmap` fits it to the image. It needs neither labels nor gradients.

    Parameters
    ----------
    model : nn.Module
        An SNN that is called on `x`, in evaluation mode; its state is left as it is.
    x : Tensor
        Images (B, C, H, W) or sequences (T, B, C, H, W).
    layer : str, optional
        The name of any module that spikes and is called once, on all steps; in a :class:`sastc.models.Network` also a
        stage ("stem", "stage1", ...) for its last neuron, or in pre-activation networks the last stage for the neuron
        behind it. There the default is the last stage; other networks have none.
    gamma : float
        Steepness γ of the kernel, not negative; 0.5 in Kim & Panda's code.

    Raises
    ------
    ValueError
        A layer that does not exist or whose output is not a map of spikes, or a value out of range.
    """
    check_number("gamma", gamma, 0)
    check("model", _name(model), getattr(model, "spiking", True), "an SNN; class_activation_map is for ANNs")
    maps: list[Tensor] = []
    hook = _find(model, layer).register_forward_hook(lambda module, args, output: maps.append(output))
    with hook, evaluation_mode(model), torch.no_grad():
        model(x)
    spikes = maps[0] if maps else None
    fires = spikes is not None and spikes.dim() == 5 and bool(((spikes == 0) | (spikes == spikes.max())).all())
    check("layer", layer, fires, "a stage or module whose output is spikes (T, B, C, H, W)")
    return contribution_map((spikes != 0).to(spikes.dtype), gamma)


def contribution_map(spikes: Tensor, gamma: float = 0.5) -> Tensor:
    """``SAM^t = Σ_c NCS^t S^t`` with the score ``NCS^t = Σ exp(-γ (t - t'))`` over the neuron's spikes t' <= t.

    S is ``(T, B, C, H, W)``, boolean or of 0 and 1; the map is ``(T, B, H, W)``, at least float32. The spike at t
    counts, too, as 1. (Kim & Panda's code also adds exp(-γ t) for every step without a spike; their formula does not.)
    """
    check("spikes", tuple(spikes.shape), spikes.dim() == 5, "(T, B, C, H, W)")
    spikes = spikes.to(torch.promote_types(spikes.dtype, torch.float32))
    maps, score = [], torch.zeros_like(spikes[0])
    for s in spikes:
        score = math.exp(-gamma) * score + s
        maps.append((score * s).sum(1))
    return torch.stack(maps)


def class_activation_map(
    model: nn.Module, x: Tensor, class_index: int | Tensor | None = None, *, layer: str | None = None
) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017) of an ANN: ``relu(Σ_c a_c f_c)``, a_c the mean gradient of the class's logit.

    The map is ``(B, H, W)`` at the layer's size. Before a global average pool and one linear layer this is the class
    activation map of Zhou et al. (2016), up to a factor and the relu.

    Parameters
    ----------
    model : nn.Module
        An ANN that gives logits (B, N), in evaluation mode; its state is left as it is.
    x : Tensor
        Images (B, C, H, W), or sequences (T, B, C, H, W); where the model sees each frame, its maps' mean is taken.
    class_index : int or Tensor, optional
        One class, or one for each image (B,); by default the class that the model predicts.
    layer : str, optional
        The name of any module with a map; in a :class:`sastc.models.Network` also a stage, as in
        :func:`spike_activation_map`, and by default the last.

    Raises
    ------
    ValueError
        An SNN, a layer that does not exist or whose output is not a map, or a class that the model does not have.
    """
    check("model", _name(model), not getattr(model, "spiking", False), "an ANN; spike_activation_map is for SNNs")
    maps: list[Tensor] = []

    def cut(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        maps.append(output.detach().requires_grad_())  # the gradient's path starts here and meets no weight before it
        return maps[-1].clone()  # which what follows may overwrite

    hook = _find(model, layer).register_forward_hook(cut)
    with evaluation_mode(model), torch.enable_grad():
        with hook:
            logits = model(x)
        check("layer", layer, bool(maps) and maps[0].dim() >= 4, "a stage or module whose output is (B, C, H, W)")
        score = logits.gather(1, _classes(class_index, logits)).sum()
        (gradient,) = torch.autograd.grad(score, maps[0])
    cam = torch.einsum("...c,...chw->...hw", gradient.mean((-2, -1)), maps[0].detach()).relu()
    return cam if cam.dim() == 3 else cam.mean(0)


def _classes(class_index: int | Tensor | None, logits: Tensor) -> Tensor:
    """Chosen classes (B, 1)."""
    if class_index is None:
        return logits.argmax(-1, keepdim=True)
    chosen, (batch, classes) = torch.as_tensor(class_index, device=logits.device), logits.shape
    valid = chosen.shape in ((), (batch,)) and not chosen.is_floating_point()
    valid = valid and bool(((chosen >= 0) & (chosen < classes)).all())
    check("class_index", class_index, valid, f"in 0 ... {classes - 1}, one for all or for each of {batch} images")
    return chosen.expand(batch).unsqueeze(1)


def heatmap(maps: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Maps (..., H, W) resized bilinearly to an image's size, each scaled to [0, 1]; a constant map is all 0."""
    flat = F.interpolate(maps.reshape(-1, 1, *maps.shape[-2:]), size, mode="bilinear", align_corners=False)
    flat = flat - flat.amin((-2, -1), keepdim=True)
    top = flat.amax((-2, -1), keepdim=True)
    return (flat / top.masked_fill(top == 0, 1)).reshape(*maps.shape[:-2], *flat.shape[-2:])


def _name(model: nn.Module) -> str:
    return getattr(model, "name", type(model).__name__)


def _find(model: nn.Module, layer: str | None) -> nn.Module:
    """The module whose output is shown."""
    stages = dict(model.stages) if isinstance(model, Network) else {}
    last = next(reversed(stages), None)
    layer = last if layer is None else layer
    if layer in stages:
        neuron = stages[layer][-1].neuron
        pre_activation = layer == last and isinstance(neuron, nn.Identity)
        return model.neck[1] if pre_activation else neuron  # the neck is norm, neuron, pool ...
    named = dict(model.named_modules())
    allowed = f"one of {', '.join(stages)} or the name" if stages else "the name"
    check("layer", layer, layer in named, f"{allowed} of a module, see model.named_modules()")
    return named[layer]
