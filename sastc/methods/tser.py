"""TSER: temporal separation with entropy regularisation.

Every step learns the labels and the teacher's logits; the entropy of every step's output is raised, against
over-confident knowledge of the teacher that is wrong.

Source: Yu et al., "Temporal Separation with Entropy Regularization for Knowledge Distillation in Spiking Neural
Networks", CVPR 2025, arXiv 2503.03144. Its abstract was read; its code, yukairong/TSER, was not available. The
formula is that of the re-implementation matteogianferrari/tser-kd at 3ae4478.

Not settled, and therefore switches: the weights (the re-implementation's settings have α, γ, τ = 0.01, 0.001, 5 and
0.7, 0.01, 5; the paper is said to be stable for τ from 2 to 6), and whether the cross-entropy is softened by τ too,
as it is there. The defaults τ = 4, α = 0.5, γ = 0.1 are ours: this method's weights are the least certain of all
methods here.
"""

from typing import TYPE_CHECKING

from sastc.methods import Batch, Method, option

if TYPE_CHECKING:
    from torch import Tensor


class TSER(Method):
    """``L = (1/T) Σ_t [ (1 - α) CE(z_t, y) + α τ² KL(σ_τ(u) ‖ σ_τ(z_t)) - γ H(σ_τ(z_t)) ]``.

    With γ = 0 and up to a factor this is TWD with β = 0.
    """

    name, label, colour, marker = "tser", "TSER", "#aa4499", "*"
    needs = ("teacher_logits", "step_logits")
    teacher_weight: float = option(0.5, "weight α of each step's divergence from the teacher", low=0, high=1)
    entropy_weight: float = option(0.1, "weight γ of the entropy of each step's output, which is raised", low=0)
    tau: float = option(4.0, "temperature", low=0, open_low=True)
    soft_labels: bool = option(False, "divide the logits of the cross-entropy by the temperature too")

    def losses(self, batch: Batch) -> "dict[str, Tensor]":
        """Parts: without their weights "step_cross_entropy", "teacher_divergence" and "entropy" (in nats)."""
        from sastc.losses import exact, soft_divergence, step_cross_entropy

        z = exact(batch.step_logits)
        tet = step_cross_entropy(z, batch.labels, self.tau if self.soft_labels else 1.0)
        teacher = soft_divergence(z, batch.teacher_logits, self.tau)
        log_p = (z / self.tau).log_softmax(-1)
        entropy = -(log_p.exp() * log_p).sum(-1).mean()
        loss = (1 - self.teacher_weight) * tet + self.teacher_weight * teacher - self.entropy_weight * entropy
        return {"step_cross_entropy": tet, "teacher_divergence": teacher, "entropy": entropy, "loss": loss}
