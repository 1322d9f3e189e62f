"""TET with KD, a control arm: labels at every step, the teacher at their mean.

TWD, TSER and SeAl-KD differ from KD in two ways at once: the labels are taught at each step (TET), and so is the
teacher. This arm has the first alone.

Source: the sum of TET's loss (Deng et al. 2022, arXiv 2202.11946, at λ = 0) and of Eq. 8's KL term; ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def tet_kd_loss(
    step_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float = 4.0,
    kl_weight: float = 1.0,
) -> dict[str, Tensor]:
    """``L = (1/T) Σ_t CE(z_t, y) + w τ² KL(σ_τ(u) ‖ σ_τ(mean_t z_t))``.

    Parameters
    ----------
    step_logits : Tensor
        z, ``(T, B, N)``.
    teacher_logits : Tensor
        u, ``(B, N)``, without gradient.
    labels : Tensor
        y, ``(B,)``.
    temperature : float
        τ, 4 as in KD.
    kl_weight : float
        w, 1 as in KD.

    Returns
    -------
    dict
        "loss", "step_cross_entropy" and "teacher_divergence" (without its weight).
    """
    from sastc.losses import exact, soft_divergence, step_cross_entropy

    tet = step_cross_entropy(step_logits, labels)
    divergence = soft_divergence(exact(step_logits).mean(0), teacher_logits, temperature)
    return {"loss": tet + kl_weight * divergence, "step_cross_entropy": tet, "teacher_divergence": divergence}
