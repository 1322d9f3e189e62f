"""SP on time means: which images a layer finds alike.

Source: Tung & Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, as written in RepDistiller and SemCKD
(the latter's code read): the last map, weight 3000, with KD.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def similarity_distance(rate: Tensor, target: Tensor, instances: int | None = None) -> Tensor:
    """``(1/B²) ‖R̂(F̄) - R̂(G)‖²``, where R̂ has the rows of the similarity matrix R (Eq. 3) at length one.

    Parameters
    ----------
    rate : Tensor
        F̄, the time mean of the student's map, ``(B, C, H, W)``.
    target : Tensor
        G, the teacher's map, ``(B, C', H', W')``, without gradient.
    instances : int, optional
        Size of the batch over all processes, see :func:`sastc.calibration.similarity`.
    """
    from torch.nn.functional import normalize

    from sastc.calibration import similarity

    difference = [normalize(similarity(x, instances), dim=-1) for x in (rate, target.detach())]
    return (difference[0] - difference[1]).square().mean()


def sp_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    rate: Tensor,
    target: Tensor,
    instances: int | None = None,
    *,
    beta: float = 3000.0,
    kl_weight: float = 1.0,
    temperature: float = 4.0,
) -> dict[str, Tensor]:
    """``L = CE(z̄, y) + w τ² KL(σ_τ(u) ‖ σ_τ(z̄)) + β L_SP``.

    Parameters
    ----------
    student_logits, teacher_logits : Tensor
        z̄ and u, ``(B, N)``.
    labels : Tensor
        y, ``(B,)``.
    rate, target, instances
        See :func:`similarity_distance`.
    beta, kl_weight, temperature : float
        β, w, τ.

    Returns
    -------
    dict
        "loss", "kd_loss" (the first two terms) and "feature_loss" (L_SP).
    """
    from sastc.losses import kd_loss

    logits = kd_loss(student_logits, teacher_logits, labels, temperature=temperature, kl_weight=kl_weight)
    distance = similarity_distance(rate, target, instances)
    return {"loss": logits + beta * distance, "kd_loss": logits, "feature_loss": distance}
