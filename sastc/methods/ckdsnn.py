"""CKDSNN: where the student fires against what the teacher's class looks at, and logits smoothed by noise.

Saliency-scaled activation map distillation (SAMD) compares the summed spikes of the last stage with the teacher's
class activation map; noise-smoothed logits distillation (NLD) teaches the logits with a little Gaussian noise on the
student's.

Source: Liu et al., "A Closer Look at Knowledge Distillation in Spiking Neural Network Training", AAAI 2026, arXiv
2511.06902. Released code read: SinoLeu/CKDSNN at 13c9f7b, where functions that are still imported had been deleted
(SAMD's divergence is at dda1567). The paper was read second hand. Published weights: β = γ = 1.

Paper and code differ, so `variant` says which:

=============  ============================  ======  ====================================================
variant        maps before their softmax     factor  noise
=============  ============================  ======  ====================================================
``per_image``  each image's scaled to 0 … 1  4       on the logits, standard deviation (as the paper)
``paper``      as they are                   4       on the logits, standard deviation
``released``   the batch's scaled to 0 … 1   1       mixed into the probabilities, variance for deviation
=============  ============================  ======  ====================================================

With maps between 0 and 1 and without the factor the released SAMD is at most 1/8 and nearly inert; raw sums over time
and channels drive the softmax into saturation. Also in the code and not here: the teacher is never set to evaluation,
and the student's last LIF is a ReLU (F then is no spike map).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

VARIANTS = ("per_image", "paper", "released")


def class_activation(target: Tensor, weight: Tensor, teacher_logits: Tensor) -> Tensor:
    """``M = ReLU(Σ_c W[ŷ, c] G_c)`` with ŷ the class that the teacher sees: ``(B, H, W)``, no gradient.

    Up to a factor the Grad-CAM of a network that ends in an average over pixels and a linear layer W.

    Parameters
    ----------
    target : Tensor
        G, the teacher's last map, ``(B, C, H, W)``.
    weight : Tensor
        W, ``(N, C)``.
    teacher_logits : Tensor
        u, ``(B, N)``.

    Raises
    ------
    ValueError
        W is not of as many channels as G: the teacher does not end in an average and one linear layer.
    """
    from sastc.losses import exact
    from sastc.models.layers import check

    shape, channels = tuple(weight.shape), target.shape[1]
    allowed = f"(N, {channels}), of one linear layer behind an average over the pixels of the last map"
    check("weight", shape, len(shape) == 2 and shape[1] == channels, allowed)
    rows = exact(weight.detach())[teacher_logits.argmax(-1)]
    return (rows[..., None, None] * exact(target.detach())).sum(1).relu()


def _between_0_and_1(maps: Tensor, over: tuple[int, ...]) -> Tensor:
    shifted = maps - maps.amin(over, keepdim=True)
    return shifted / (shifted.amax(over, keepdim=True) + 1e-3)


def activation_divergence(features: Tensor, saliency: Tensor, variant: str = "per_image") -> Tensor:
    """SAMD: ``f KL(softmax(M/2) ‖ softmax(S/2))`` over the pixels, the mean over images, with ``S = Σ_t Σ_c F``.

    Parameters
    ----------
    features : Tensor
        F, the student's last map, ``(T, B, C, H, W)``.
    saliency : Tensor
        M, ``(B, H', W')``, see :func:`class_activation`. The larger of both maps is averaged down to the other's size.
    variant : {"per_image", "paper", "released"}
        How maps are scaled, and whether f is 2² or 1; see the head of this file. Of "released" with several processes
        or micro-batches the batch is the part that is computed at once.
    """
    from sastc.losses import exact, of_one_size, soft_divergence
    from sastc.models.layers import check

    check("variant", variant, variant in VARIANTS, f"one of {', '.join(VARIANTS)}")
    maps = of_one_size(exact(features).sum((0, 2)).unsqueeze(1), saliency.detach().unsqueeze(1))
    # paper: raw maps, factor 4  released: scaled over the whole batch, no factor
    if variant != "paper":
        over = (0, 1, 2, 3) if variant == "released" else (1, 2, 3)
        maps = [_between_0_and_1(x, over) for x in maps]
    divergence = soft_divergence(*(x.flatten(1) for x in maps), 2.0)
    return divergence / 4 if variant == "released" else divergence


def smoothed_divergence(
    student_logits: Tensor, teacher_logits: Tensor, noise: Tensor, variant: str = "per_image", share: float = 0.1
) -> Tensor:
    """NLD: KD at temperature 2 with noise on the student's side.

    ``K₂(z̄ + ρ (m + ξ s), u)`` with the mean m and the standard deviation s (n - 1) over an image's classes, both with
    gradient. "released": ``4 KL(σ₂(u) ‖ (1 - ρ) σ₂(z̄) + ρ σ₂(m + ξ s²))``.

    Parameters
    ----------
    student_logits, teacher_logits : Tensor
        z̄ and u, ``(B, N)``, the teacher's without gradient.
    noise : Tensor
        ξ, ``(B, N)``, drawn anew at every step from N(0, 1).
    variant : {"per_image", "paper", "released"}
        "per_image" is the paper's.
    share : float
        ρ, 0.1 in paper and code.
    """
    from torch.nn.functional import kl_div

    from sastc.losses import exact, soft_divergence
    from sastc.models.layers import check

    check("variant", variant, variant in VARIANTS, f"one of {', '.join(VARIANTS)}")
    z = exact(student_logits)
    mean, deviation = z.mean(-1, keepdim=True), z.std(-1, keepdim=True)
    # paper: noise on the logits, deviation s  released: on the probabilities, s squared
    if variant != "released":
        return soft_divergence(z + share * (mean + noise * deviation), teacher_logits, 2.0)
    noisy = (mean + noise * deviation.square()) / 2
    mixed = (1 - share) * (z / 2).softmax(-1) + share * noisy.softmax(-1)
    return 4 * kl_div(mixed.log(), (exact(teacher_logits).detach() / 2).softmax(-1), reduction="batchmean")


def ckdsnn_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    features: Tensor,
    target: Tensor,
    weight: Tensor,
    noise: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    variant: str = "per_image",
) -> dict[str, Tensor]:
    """``L = CE(z̄, y) + β SAMD + γ NLD``.

    Parameters
    ----------
    student_logits, teacher_logits : Tensor
        z̄ and u, ``(B, N)``.
    labels : Tensor
        y, ``(B,)``.
    features : Tensor
        F, the student's last map, ``(T, B, C, H, W)``.
    target, weight : Tensor
        The teacher's last map and classifier, see :func:`class_activation`.
    noise : Tensor
        See :func:`smoothed_divergence`.
    beta, gamma : float
        β, γ.
    variant : {"per_image", "paper", "released"}
        See the head of this file.

    Returns
    -------
    dict
        "loss", "cross_entropy", "activation_divergence" (SAMD) and "smoothed_divergence" (NLD).
    """
    from torch.nn.functional import cross_entropy

    from sastc.losses import exact

    hard = cross_entropy(exact(student_logits), labels)
    samd = activation_divergence(features, class_activation(target, weight, teacher_logits), variant)
    nld = smoothed_divergence(student_logits, teacher_logits, noise, variant)
    parts = {"cross_entropy": hard, "activation_divergence": samd, "smoothed_divergence": nld}
    return {"loss": hard + beta * samd + gamma * nld} | parts
