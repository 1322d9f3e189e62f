"""KDSNN: the teacher's last map as a target for the student's firing rates.

Source: Xu et al., "Constructing Deep Spiking Neural Networks from Artificial Neural Networks with Knowledge
Distillation", CVPR 2023, arXiv 2304.05627; no code was released. Its abstract was read: a response-based and a
feature-based variant, for students and teachers of different structure. Layers and weights are not known here.

The feature distance is that of the re-implementation in BKDSNN's code (read at dd6bd53), which has no logit term:
``CE + 7e-5 D``, in its event script ``CE + 2e-3 D``. The default adds KD's term, as the paper's other variant has one,
and takes 2e-3. That variant, as remembered, is ``(1 - α) CE + α K``: method kd with kl_weight = α and ce_weight =
1 - α. The paper's distance is said to be a partial one (no penalty where the student is below a target that is not
positive); that could not be checked and is left out.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sastc.methods import Batch, option
from sastc.methods.kd import KDWithFeatures

if TYPE_CHECKING:
    from torch import Tensor, nn


class KDSNN(KDWithFeatures):
    """``L = KD + α D`` with ``D = (1/B) ‖φ(r(F̄)) - φ(G)‖²``, a sum over channels (and pixels).

    F̄ is the time mean of the student's last map, G the teacher's after its last ReLU. r is a 1×1 convolution where the
    channels are not as many.
    """

    name, label, colour, marker = "kdsnn", "KDSNN", "#117733", "h"
    feature_weight: float = option(2e-3, "weight α of the squared distance of the last maps", low=0)
    pooled: bool = option(True, "average the maps over their pixels first (φ), as in the re-implementation")

    def build(self, student_shapes: Sequence[tuple], teacher_shapes: Sequence[tuple]) -> "nn.Module":
        """r, applied to F̄ or, as both are linear, to its mean over the pixels."""
        from sastc.losses import Beside, time_mean

        def aligned(r: "nn.Module", students: "list[Tensor]", *_) -> "Tensor":
            rate = time_mean(students[-1])
            return r(rate.mean((-2, -1), keepdim=True) if self.pooled else rate)

        return Beside(channel_map(student_shapes[-1][0], teacher_shapes[-1][0]), aligned)

    def feature_loss(self, batch: Batch) -> "Tensor":
        """D."""
        return squared_distance(batch.trained, last_map(batch), self.pooled)


def channel_map(student_channels: int, teacher_channels: int) -> "nn.Module":
    """A 1×1 convolution with bias from the student's channels to the teacher's; the identity if they are as many."""
    from torch import nn

    same = student_channels == teacher_channels
    return nn.Identity() if same else nn.Conv2d(student_channels, teacher_channels, 1)


def last_map(batch: Batch) -> "Tensor":
    """The teacher's last map after its last ReLU, without time and gradient: ``(B, C, H, W)``."""
    import torch

    from sastc.losses import exact, time_mean

    with torch.no_grad():
        return time_mean(batch.teacher.last_map(exact(batch.teacher_features[-1])))


def squared_distance(student: "Tensor", target: "Tensor", pooled: bool) -> "Tensor":
    """``(1/B) ‖student - target‖²``, maps ``(B, C, H, W)`` of one number of channels; the target gets no gradient.

    If `pooled`, the sum goes over the channels' means over pixels. Otherwise the larger map is averaged down to the
    size of the other.
    """
    from sastc.losses import exact, of_one_size

    student, target = exact(student), exact(target).detach()
    if pooled:
        student, target = (x.mean((-2, -1)) for x in (student, target))
    else:
        student, target = of_one_size(student, target)
    return (student - target).square().sum() / len(student)
