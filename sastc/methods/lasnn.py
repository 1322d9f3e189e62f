"""LaSNN-style: attention transfer (AT) on firing rates, layer by layer.

Source: Hong, Shen, Qi, Wang, "LaSNN: Layer-wise ANN-to-SNN Distillation for Effective and Efficient Training in Deep
Spiking Neural Networks", 2023, arXiv 2304.09101; no code was released. Its abstract was read: attention maps are
distilled layer by layer. Exponent, norm, weights and the use of logits could not be read. The paper also converts the
teacher's weights into the student's first ones, which needs equal networks and is left out.

The form is that of its ancestor: Zagoruyko & Komodakis, "Paying More Attention to Attention", ICLR 2017, as written
in RepDistiller and SemCKD (read), with their weight 1000 and KD beside it. It is therefore AT on time means too.

``lasnn_mse`` is what BKDSNN's code (read at dd6bd53) calls LaSNN: squared distances of whole maps at the stages'
ends, weight 7e-5, no logit term. Its 1×1 convolutions lie in a plain list and are never trained; here they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn


def attention_map(features: Tensor) -> Tensor:
    """Where a layer is active: the channels' mean square at every pixel, at length one.

    ``(B, C, H, W)`` to ``(B, H·W)``. A dead layer has a map of zeros.
    """
    from torch.nn.functional import normalize

    from sastc.losses import exact

    return normalize(exact(features).square().mean(1).flatten(1), dim=-1)


def attention_distance(rates: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """``Σ_pairs mean_{B, H·W} (Q(F̄) - Q(G))²`` with Q of :func:`attention_map`.

    Parameters
    ----------
    rates, targets : sequence of Tensor
        The two maps of every pair: time means ``(B, C, H, W)`` of the student's, ``(B, C', H', W')`` of the teacher's,
        without gradient. The larger one is averaged down to the size of the other.
    """
    from sastc.losses import of_one_size

    pairs = [of_one_size(rate, target.detach()) for rate, target in zip(rates, targets, strict=True)]
    return sum((attention_map(rate) - attention_map(target)).square().mean() for rate, target in pairs)


def lasnn_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    rates: Sequence[Tensor],
    targets: Sequence[Tensor],
    *,
    beta: float = 1000.0,
    kl_weight: float = 1.0,
    temperature: float = 4.0,
) -> dict[str, Tensor]:
    """``L = CE(z̄, y) + w τ² KL(σ_τ(u) ‖ σ_τ(z̄)) + β L_AT``.

    Parameters
    ----------
    student_logits, teacher_logits : Tensor
        z̄ and u, ``(B, N)``.
    labels : Tensor
        y, ``(B,)``.
    rates, targets
        See :func:`attention_distance`.
    beta, kl_weight, temperature : float
        β, w, τ.

    Returns
    -------
    dict
        "loss", "kd_loss" (the first two terms) and "feature_loss" (L_AT).
    """
    from sastc.losses import kd_loss

    logits = kd_loss(student_logits, teacher_logits, labels, temperature=temperature, kl_weight=kl_weight)
    distance = attention_distance(rates, targets)
    return {"loss": logits + beta * distance, "kd_loss": logits, "feature_loss": distance}


def lasnn_mse_loss(
    student_logits: Tensor,
    labels: Tensor,
    rates: Sequence[Tensor],
    targets: Sequence[Tensor],
    maps: Sequence[nn.Module],
    *,
    alpha: float = 7e-5,
) -> dict[str, Tensor]:
    """``L = CE(z̄, y) + α Σ_pairs (1/B) ‖r(F̄) - G‖²``: LaSNN as in BKDSNN's code.

    Parameters
    ----------
    student_logits, labels : Tensor
        z̄ ``(B, N)``, y ``(B,)``.
    rates, targets : sequence of Tensor
        As in :func:`attention_distance`.
    maps : sequence of nn.Module
        r of every pair, see :func:`sastc.methods.kdsnn.channel_map`.
    alpha : float
        α.

    Returns
    -------
    dict
        "loss", "cross_entropy" and "feature_loss".
    """
    from torch.nn.functional import cross_entropy

    from sastc.losses import exact
    from sastc.methods.kdsnn import squared_distance

    hard = cross_entropy(exact(student_logits), labels)
    pairs = zip(rates, targets, maps, strict=True)
    distance = sum(squared_distance(*pair, pooled=False) for pair in pairs)
    return {"loss": hard + alpha * distance, "cross_entropy": hard, "feature_loss": distance}
