"""SP on time means: which images a layer represents alike.

Source: Tung & Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, as written in RepDistiller and SemCKD
(the latter's code read): the last map, weight 3000, with KD.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sastc.methods import option
from sastc.methods.kd import KDWithFeatures

if TYPE_CHECKING:
    from torch import Tensor, nn


class SP(KDWithFeatures):
    """``L = KD + β (1/B²) ‖R̂(F̄) - R̂(G)‖²`` of the last layers: :func:`similarity_distance`."""

    name, label, colour, marker = "sp", "SP", "#6699cc", "X"
    feature_weight: float = option(3000.0, "weight β of the squared distance of similarity matrices", low=0)

    def build(self, student_shapes: Sequence[tuple], teacher_shapes: Sequence[tuple]) -> "nn.Module":
        """Nothing to train: the distance, which several processes compute from all images of the batch."""
        from torch import nn

        from sastc.losses import Beside

        def distance(_, students: "list[Tensor]", teachers: "list[Tensor]", instances: int | None) -> "Tensor":
            return similarity_distance(students[-1], teachers[-1], instances)

        return Beside(nn.Identity(), distance)


def similarity_distance(student: "Tensor", teacher: "Tensor", instances: int | None = None) -> "Tensor":
    """``(1/B²) ‖R̂(F̄) - R̂(G)‖²``, where R̂ has the rows of the similarity matrix R (Eq. 3) at length one.

    Features are ``(B, C, H, W)``, or ``(T, B, C, H, W)``, which are averaged over time; the teacher's get no gradient.
    See :func:`sastc.calibration.similarity` for `instances`.
    """
    from torch.nn.functional import normalize

    from sastc.calibration import similarity
    from sastc.losses import time_mean

    rows = [normalize(similarity(time_mean(x), instances), dim=-1) for x in (student, teacher.detach())]
    return (rows[0] - rows[1]).square().mean()
