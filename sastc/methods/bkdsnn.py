"""BKDSNN: the teacher's last features restored from a blurred student, and KD that weighs hard images more.

Source: Xu et al., "BKDSNN: Enhancing the Performance of Learning-based Spiking Neural Networks Training with Blurred
Knowledge Distillation", ECCV 2024, arXiv 2407.09083. Released code read: Intelligent-Computing-Research-Group/BKDSNN
at dd6bd53. The abstract was read; it places the blur right before the classifier. The logit term (WSLD) is that of
Zhou et al., "Rethinking Soft Labels for Knowledge Distillation", ICLR 2021.

Published: τ = 2 with weight 1; α = 2e-3 and λ = 0.15 (CIFAR configurations; the code's default α is 7e-5; the paper's
best λ is said to be 0.6). As in the CIFAR code the last map is restored, then averaged, and the target is the
teacher's averaged map. Which map gave the published numbers of convolutional networks is unknown: the ImageNet
script lacks its loss file, both scripts for events hand over student and teacher in swapped order.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sastc.methods import Batch, Method, option
from sastc.methods.kdsnn import channel_map, last_map, squared_distance

if TYPE_CHECKING:
    from torch import Tensor, nn


class BKDSNN(Method):
    """``L = CE(z̄, y) + v L_WSLD + α L_BKD`` with ``L_BKD = (1/B) ‖φ(g(m ⊙ r(F̄))) - φ(G)‖²``.

    F̄ is the time mean of the student's last map, G the teacher's after its last ReLU, φ the mean over pixels; the norm
    is a sum over channels. m blanks whole channels of an image, each with probability λ, anew in every step; what stays
    is not scaled up. r and g are those of :func:`restorer`, L_WSLD that of :func:`weighted_soft_loss`.
    """

    name, label, colour, marker = "bkdsnn", "BKDSNN", "#332288", "<"
    needs = ("teacher_logits", "teacher_features")
    feature_weight: float = option(2e-3, "weight α of the squared distance of restored and teacher's features", low=0)
    blank: float = option(0.15, "probability λ that a channel of an image is blanked", low=0, high=1)
    soft_weight: float = option(1.0, "weight v of the soft loss", low=0)
    tau: float = option(2.0, "temperature of the soft loss", low=0, open_low=True)

    def build(self, student_shapes: Sequence[tuple], teacher_shapes: Sequence[tuple]) -> "nn.Module":
        """The modules r and g."""
        import torch

        from sastc.losses import Beside, time_mean

        channels = teacher_shapes[-1][0]

        def restored(modules: "nn.Module", students: "list[Tensor]", *_) -> "Tensor":
            rate = time_mean(students[-1])
            return restore(modules, rate, torch.rand(len(rate), channels, device=rate.device) >= self.blank)

        return Beside(restorer(student_shapes[-1][0], channels), restored)

    def losses(self, batch: Batch) -> "dict[str, Tensor]":
        """Parts: without their weights "soft_loss" and "feature_loss"."""
        soft, _ = weighted_soft_loss(batch.logits, batch.teacher_logits, batch.labels, self.tau)
        distance = squared_distance(batch.trained, last_map(batch), pooled=True)
        loss = batch.cross_entropy + self.soft_weight * soft + self.feature_weight * distance
        return {"soft_loss": soft, "feature_loss": distance, "loss": loss}


def restorer(student_channels: int, teacher_channels: int) -> "nn.ModuleDict":
    """What is trained beside the student: "align", r, and "restore", g.

    r is a 1×1 convolution with bias, or the identity where the channels are as many; g is a 3×3 convolution at the
    teacher's width, ReLU, and another.
    """
    from torch import nn

    from sastc.models.layers import Conv

    def conv() -> nn.Module:
        return Conv(teacher_channels, teacher_channels, bias=True)

    align = channel_map(student_channels, teacher_channels)
    return nn.ModuleDict({"align": align, "restore": nn.Sequential(conv(), nn.ReLU(), conv())})


def restore(modules: "nn.ModuleDict", rate: "Tensor", kept: "Tensor") -> "Tensor":
    """``g(m ⊙ r(F̄))``: F̄ `rate` ``(B, C, H, W)``, m `kept` ``(B, C')`` of booleans, to ``(B, C', H, W)``."""
    aligned = modules["align"](rate)
    return modules["restore"](aligned * kept[..., None, None].to(aligned.dtype))


def weighted_soft_loss(
    student_logits: "Tensor", teacher_logits: "Tensor", labels: "Tensor", temperature: float = 2.0
) -> "tuple[Tensor, Tensor]":
    """``L_WSLD = τ² mean_b w_b (-Σ σ_τ(u) ln σ_τ(z̄))`` and w, ``(B,)``.

    ``w = 1 - exp(-CE(z̄, y) / (CE(u, y) + 1e-7))`` without gradient: near 0 where the student already beats its teacher.
    A cross-entropy with the teacher, not a divergence: it does not end at 0. Logits z̄ and u are ``(B, N)``, the
    teacher's u without gradient; y is ``(B,)``.
    """
    from torch.nn.functional import cross_entropy

    from sastc.losses import exact

    z, u = exact(student_logits), exact(teacher_logits).detach()
    hard, taught = (cross_entropy(x, labels, reduction="none") for x in (z.detach(), u))
    w = 1 - (-hard / (taught + 1e-7)).exp()
    soft = -((u / temperature).softmax(-1) * (z / temperature).log_softmax(-1)).sum(-1)
    return temperature**2 * (w * soft).mean(), w
