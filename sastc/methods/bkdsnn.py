"""BKDSNN: the teacher's last features restored from a blurred student, and KD that minds hard images more.

Source: Xu et al., "BKDSNN: Enhancing the Performance of Learning-based Spiking Neural Networks Training with Blurred
Knowledge Distillation", ECCV 2024, arXiv 2407.09083. Released code read: Intelligent-Computing-Research-Group/BKDSNN
at dd6bd53. The abstract was read; it places the blur right before the classifier. The logit term (WSLD) is that of
Zhou et al., "Rethinking Soft Labels for Knowledge Distillation", ICLR 2021.

Published: τ = 2 with weight 1; α = 2e-3 and λ = 0.15 (CIFAR configurations; the code's default α is 7e-5; the paper's
best λ is said to be 0.6). As in the CIFAR code the last map is restored, then averaged, and the target is the
teacher's averaged map. Which map gave the published numbers of convolutional networks cannot be told: the ImageNet
script lacks its loss file, both scripts for events hand over student and teacher in swapped order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def restorer(student_channels: int, teacher_channels: int) -> nn.ModuleDict:
    """What is trained beside the student: "align", r, and "restore", g.

    r is a 1×1 convolution with bias, or the identity where the channels are as many; g is a 3×3 convolution at the
    teacher's width, ReLU, and another.
    """
    from torch import nn

    from sastc.methods.kdsnn import channel_map
    from sastc.models.layers import Conv

    def conv() -> nn.Module:
        return Conv(teacher_channels, teacher_channels, bias=True)

    align = channel_map(student_channels, teacher_channels)
    return nn.ModuleDict({"align": align, "restore": nn.Sequential(conv(), nn.ReLU(), conv())})


def blurred_distance(rate: Tensor, target: Tensor, modules: nn.ModuleDict, kept: Tensor) -> Tensor:
    """``L_BKD = (1/B) ‖φ(g(m ⊙ r(F̄))) - φ(G)‖²``, a sum over channels; φ is the mean over pixels.

    Parameters
    ----------
    rate : Tensor
        F̄, the time mean of the student's last map, ``(B, C, H, W)``.
    target : Tensor
        G, the teacher's last map, ``(B, C', H', W')``, without gradient.
    modules : nn.ModuleDict
        r and g, see :func:`restorer`.
    kept : Tensor
        m, ``(B, C')``, booleans: whole channels of an image are blanked. What stays is not scaled up.
    """
    from sastc.losses import exact

    aligned = modules["align"](rate)
    restored = exact(modules["restore"](aligned * kept[..., None, None].to(aligned.dtype)))
    difference = restored.mean((-2, -1)) - exact(target).detach().mean((-2, -1))
    return difference.square().sum() / len(rate)


def weighted_soft_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float = 2.0
) -> tuple[Tensor, Tensor]:
    """``L_WSLD = τ² mean_b w_b (-Σ σ_τ(u) ln σ_τ(z̄))`` and w, ``(B,)``.

    ``w = 1 - exp(-CE(z̄, y) / (CE(u, y) + 1e-7))`` without gradient: near 0 where the student already beats its teacher.
    A cross-entropy with the teacher, not a divergence: it does not end at 0.

    Parameters
    ----------
    student_logits, teacher_logits : Tensor
        z̄ and u, ``(B, N)``, the teacher's without gradient.
    labels : Tensor
        y, ``(B,)``.
    temperature : float
        τ.
    """
    from torch.nn.functional import cross_entropy

    from sastc.losses import exact

    z, u = exact(student_logits), exact(teacher_logits).detach()
    hard, taught = (cross_entropy(x, labels, reduction="none") for x in (z.detach(), u))
    w = 1 - (-hard / (taught + 1e-7)).exp()
    soft = -((u / temperature).softmax(-1) * (z / temperature).log_softmax(-1)).sum(-1)
    return temperature**2 * (w * soft).mean(), w


def bkdsnn_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    rate: Tensor,
    target: Tensor,
    modules: nn.ModuleDict,
    kept: Tensor,
    *,
    alpha: float = 2e-3,
    temperature: float = 2.0,
    wsld_weight: float = 1.0,
) -> dict[str, Tensor]:
    """``L = CE(z̄, y) + v L_WSLD + α L_BKD``.

    Parameters
    ----------
    student_logits, teacher_logits : Tensor
        z̄ and u, ``(B, N)``.
    labels : Tensor
        y, ``(B,)``.
    rate, target, modules, kept
        See :func:`blurred_distance`; `kept` is drawn anew at every step, True with probability 1 - λ.
    alpha, temperature, wsld_weight : float
        α, τ, v.

    Returns
    -------
    dict
        "loss", "cross_entropy", "soft_loss" (L_WSLD) and "feature_loss" (L_BKD).
    """
    from torch.nn.functional import cross_entropy

    from sastc.losses import exact

    hard = cross_entropy(exact(student_logits), labels)
    soft, _ = weighted_soft_loss(student_logits, teacher_logits, labels, temperature)
    distance = blurred_distance(rate, target, modules, kept)
    loss = hard + wsld_weight * soft + alpha * distance
    return {"loss": loss, "cross_entropy": hard, "soft_loss": soft, "feature_loss": distance}
