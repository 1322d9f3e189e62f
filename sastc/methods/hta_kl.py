"""HTA-KL: forward and reverse divergence, weighed by where student and teacher differ.

The forward KL divergence emphasises what the teacher thinks likely (the head of its distribution), the reverse one the
tail. Each is weighed by the share of the error in its part.

Source: Zhang, Zhu, Yu, Wang, "Head-Tail-Aware KL Divergence in Knowledge Distillation for Spiking Neural Networks",
2025, arXiv 2504.20445; no code was released. The abstract and summaries were read. What they leave open is as in its
ancestor AKL (Wu et al., arXiv 2404.02657, a re-implementation), which takes the weights from probabilities that
are not softened; HTA-KL from softened ones.

Not settled, and therefore switches: whether the cumulative mask acts on the weights alone (the default, as in AKL) or
inside the two sums too; τ, δ (0.5 in AKL) and the weight. The defaults τ = 4 and weight 1 are those of KD.
"""

from typing import TYPE_CHECKING

from sastc.methods import Batch, Method, option

if TYPE_CHECKING:
    from torch import Tensor


class HTAKL(Method):
    """``L = CE(z̄, y) + v τ² HTA`` with HTA of :func:`hta_divergence`."""

    name, label, colour, marker = "hta_kl", "HTA-KL", "#009e73", "v"
    needs = ("teacher_logits",)
    weight: float = option(1.0, "weight v of the head-tail-aware divergence", low=0)
    tau: float = option(4.0, "temperature", low=0, open_low=True)
    head_share: float = option(0.5, "probability δ that the head holds at most", low=0, high=1)
    masked: bool = option(False, "forward divergence over the head alone, reverse divergence over the tail alone")

    def losses(self, batch: Batch) -> "dict[str, Tensor]":
        """Parts: "head_tail_divergence" (with τ², without its weight) and "head_weight", the mean of w."""
        options = self.tau, self.head_share, self.masked
        divergence, w = hta_divergence(batch.logits, batch.teacher_logits, *options)
        soft = self.tau**2 * divergence.mean()
        loss = batch.cross_entropy + self.weight * soft
        return {"head_tail_divergence": soft, "head_weight": w.mean(), "loss": loss}


def head(probabilities: "Tensor", share: float = 0.5) -> "Tensor":
    """Which classes make the head of a distribution, as booleans ``(..., N)``.

    In order of falling probability: the first, and the next ones as long as the sum of all does not exceed `share`, δ.
    """
    import torch

    ordered, order = probabilities.sort(stable=True, dim=-1, descending=True)
    within = ordered.cumsum(-1) <= share
    within[..., 0] = True
    return torch.zeros_like(within).scatter(-1, order, within)


def hta_divergence(
    student_logits: "Tensor", teacher_logits: "Tensor", temperature: float, share: float = 0.5, masked: bool = False
) -> "tuple[Tensor, Tensor]":
    """``w KL(p ‖ q) + (1 - w) KL(q ‖ p)`` and w, both ``(...)``, with ``p = σ_τ(u)`` and ``q = σ_τ(z)``.

    ``w = g_h / (g_h + g_t + 1e-8)``, where g is the sum of ``|p - q|`` over head or tail; it has no gradient. Where the
    first class alone has more than δ, w is at most 1/2, and 1/2 if all errors in the tail have one sign: then the whole
    is near the mean of both divergences. Not multiplied by τ². The teacher's logits u get no gradient; `share` is δ. If
    `masked`, the forward KL is over the head only, the reverse KL over the tail only.
    """
    from sastc.losses import exact

    log_q = (exact(student_logits) / temperature).log_softmax(-1)
    log_p = (exact(teacher_logits).detach() / temperature).log_softmax(-1)
    p, q = log_p.exp(), log_q.exp()
    in_head = head(p, share)
    gap = (p - q.detach()).abs()
    w = (gap * in_head).sum(-1) / (gap.sum(-1) + 1e-8)  # where the two agree both divergences are 0, and so is w
    forward, reverse = p * (log_p - log_q), q * (log_q - log_p)
    if masked:
        forward, reverse = forward * in_head, reverse * ~in_head
    return w * forward.sum(-1) + (1 - w) * reverse.sum(-1), w
