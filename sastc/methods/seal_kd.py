"""SeAl-KD: every step is aligned by its own errors, and by the confidence of the other steps.

Error-aware logits alignment (ELA) teaches a step that classifies wrongly neither the right nor the wrong logit;
similarity-aware temporal alignment (STA) teaches every step a mean of the others that weighs confident and similar
ones more.

Source: Sun et al. 2026, arXiv 2605.14252. Released code read: KaiSUN1/SeAl at b30ead6; the paper's abstract agrees
with it in outline.

Published: α = 0.6, β = 0.15 (the README's command; the argument parser's defaults are 0), τ = 3 (code). The file's
unused options (margin, InfoNCE) are not part of the method.
"""

import math
from typing import TYPE_CHECKING

from sastc.methods import Batch, Method, option

if TYPE_CHECKING:
    from torch import Tensor


class SeAlKD(Method):
    """``L = (1/T) Σ_t [ CE(z_t, y) + α K(z̃_t, ũ_t) + β K(z_t, Σ_{j≠t} a_tj z_j) ]`` with K as in TWD.

    z̃ and ũ are those of :func:`error_aware`, a those of :func:`step_weights`; targets and weights have no gradient.
    With two steps each learns the other; with one the last term is 0.
    """

    name, label, colour, marker = "seal_kd", "SeAl-KD", "#882255", "H"
    needs = ("teacher_logits", "step_logits")
    teacher_weight: float = option(0.6, "weight α of the error-aware divergence of each step from the teacher", low=0)
    time_weight: float = option(0.15, "weight β of the divergence of each step from the other steps", low=0)
    tau: float = option(3.0, "temperature of both", low=0, open_low=True)

    def losses(self, batch: Batch) -> "dict[str, Tensor]":
        """Parts: "step_cross_entropy", and without their weights "error_aware" and "temporal"."""
        from sastc.losses import exact, soft_divergence, step_cross_entropy

        z = exact(batch.step_logits)
        tet = step_cross_entropy(z, batch.labels)
        ela = soft_divergence(*error_aware(z, exact(batch.teacher_logits), batch.labels), self.tau)
        if len(z) == 1:
            sta = z.new_zeros(())
        else:
            others = (step_weights(z).unsqueeze(-1) * z.detach()).sum(1)  # over j
            sta = soft_divergence(z, others, self.tau)
        loss = tet + self.teacher_weight * ela + self.time_weight * sta
        return {"step_cross_entropy": tet, "error_aware": ela, "temporal": sta, "loss": loss}


def error_aware(step_logits: "Tensor", teacher_logits: "Tensor", labels: "Tensor") -> "tuple[Tensor, Tensor]":
    """Logits of student and teacher, both ``(T, B, N)``, for the error-aware alignment.

    Where ``w = argmax z_t`` is not y, the student's entry w becomes a copy of its entry y (the gradient of both goes to
    ``z_{t,y}``, none to ``z_{t,w}``), and the teacher's entries w and y both become the smaller of the two. Elsewhere
    nothing changes. u is ``(B, N)``, y ``(B,)``.
    """
    import torch

    said = step_logits.detach().argmax(-1, keepdim=True)  # (T, B, 1)
    right = labels.view(1, -1, 1).expand_as(said)
    wrong = said != right
    student = step_logits.scatter(-1, said, step_logits.gather(-1, right))  # where it is right, itself
    teacher = teacher_logits.detach().expand_as(step_logits)
    least = torch.minimum(teacher.gather(-1, right), teacher.gather(-1, said))
    return student, torch.where(wrong, teacher.scatter(-1, said, least).scatter(-1, right, least), teacher)


def step_weights(step_logits: "Tensor") -> "Tensor":
    """How much each step t learns of each other step j: ``(T, T, B)`` of z ``(T, B, N)``; rows t add up to 1.

    A softmax over j ≠ t of ``c_j cos(z_t, z_j)`` with the confidence ``c_j = 1 - H(σ(z_j)) / ln N``. No gradient. Needs
    T >= 2.
    """
    import torch

    z = step_logits.detach()
    log_p = z.log_softmax(-1)
    # released: 1e-8 inside the logarithm of the entropy; a single class leaves nothing to doubt, c = 1
    confidence = 1 + (log_p.exp() * log_p).sum(-1) / math.log(max(z.shape[-1], 2))
    unit = z / z.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    scores = confidence * (unit.unsqueeze(1) * unit).sum(-1)  # (t, j, B)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device).unsqueeze(-1)
    return scores.masked_fill(itself, -math.inf).softmax(1)
