"""TET, a control arm: every step is taught the labels, nobody teaches but them.

TWD, TSER and SeAl-KD take the cross-entropy of each step's logits instead of that of their mean. This arm shows what
that alone is worth, so that it is not counted as a gain of their distillation.

Source: Deng, Li, Zhang, Gu, "Temporal Efficient Training of Spiking Neural Network via Gradient Re-weighting", ICLR
2022, arXiv 2202.11946. Its second term, λ times the squared distance of the logits to the firing threshold, is left
out, as in the three methods (λ = 0).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def tet_loss(step_logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """``L = (1/T) Σ_t CE(z_t, y)``.

    Parameters
    ----------
    step_logits : Tensor
        z, ``(T, B, N)``: the classifier's output at every step.
    labels : Tensor
        y, ``(B,)``.

    Returns
    -------
    dict
        "loss", which is "step_cross_entropy".
    """
    from sastc.losses import step_cross_entropy

    tet = step_cross_entropy(step_logits, labels)
    return {"loss": tet, "step_cross_entropy": tet}
