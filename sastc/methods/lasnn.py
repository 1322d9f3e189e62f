"""LaSNN-style: attention transfer (AT) on firing rates, layer by layer.

Source: Hong, Shen, Qi, Wang, "LaSNN: Layer-wise ANN-to-SNN Distillation for Effective and Efficient Training in Deep
Spiking Neural Networks", 2023, arXiv 2304.09101; no code was released. Its abstract was read: attention maps are
distilled layer by layer. Exponent, norm, weights and the use of logits could not be read. The paper also converts the
teacher's weights into the student's first ones, which needs equal networks and is left out.

The form is that of its ancestor: Zagoruyko & Komodakis, "Paying More Attention to Attention", ICLR 2017, as written
in RepDistiller and SemCKD (read), with their weight 1000 and KD beside it. It is therefore AT on time means too.
"""

from typing import TYPE_CHECKING

from sastc.methods import Batch, option
from sastc.methods.kd import KD, KDWithFeatures

if TYPE_CHECKING:
    from torch import Tensor


class LaSNN(KDWithFeatures):
    """``L = KD + β Σ_pairs mean_{B, H·W} (Q(F̄) - Q(G))²`` with Q of :func:`attention_map`.

    F̄ are the firing rates of a student layer, G is the teacher layer of the pair, as it is tapped.
    """

    name, label, colour, marker = "lasnn", "LaSNN-style AT", "#88ccee", "p"
    fields = (*KD.fields, "feature_pairs")
    feature_weight: float = option(1000.0, "weight β of the distance of attention maps", low=0)

    def feature_loss(self, batch: Batch) -> "Tensor":
        """The sum over pairs."""
        from sastc.calibration import layer_pairs

        pairs = layer_pairs(self.config.feature_pairs, len(batch.features), len(batch.teacher_features))
        return sum(attention_distance(batch.features[s], batch.teacher_features[a]) for s, a in pairs)


def attention_map(features: "Tensor") -> "Tensor":
    """Where a layer is active: the channels' mean square at every pixel, at length one.

    ``(B, C, H, W)`` to ``(B, H·W)``. A dead layer has a map of zeros.
    """
    from torch.nn.functional import normalize

    return normalize(features.square().mean(1).flatten(1), dim=-1)


def attention_distance(student: "Tensor", teacher: "Tensor") -> "Tensor":
    """Mean over instances and pixels of the squared difference of two layers' attention maps.

    Layers are ``(B, C, H, W)``, or ``(T, B, C, H, W)``, which are averaged over time; the teacher's gets no gradient.
    The larger map is averaged down to the size of the other.
    """
    from sastc.losses import of_one_size, time_mean

    student, teacher = of_one_size(time_mean(student), time_mean(teacher.detach()))
    return (attention_map(student) - attention_map(teacher)).square().mean()
