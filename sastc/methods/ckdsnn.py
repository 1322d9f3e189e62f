"""CKDSNN: the student's firing compared with the teacher's class activation map, and logits smoothed by noise.

Saliency-scaled activation map distillation (SAMD) compares the summed spikes of the last stage with the teacher's
class activation map; noise-smoothed logits distillation (NLD) teaches the logits with a little Gaussian noise on the
student's.

Source: Liu et al., "A Closer Look at Knowledge Distillation in Spiking Neural Network Training", AAAI 2026, arXiv
2511.06902. Released code read: SinoLeu/CKDSNN at 13c9f7b, where functions that are still imported had been deleted
(SAMD's divergence is at dda1567). The paper is known from summaries. Published weights: β = γ = 1.

Paper and code differ, so the option `version` says which:

=============  ============================  ======  ====================================================
version        maps before their softmax     factor  noise
=============  ============================  ======  ====================================================
``per_image``  each image's scaled to 0 … 1  4       on the logits, standard deviation (as the paper)
``paper``      as they are                   4       on the logits, standard deviation
``released``   the batch's scaled to 0 … 1   1       mixed into the probabilities, variance for deviation
=============  ============================  ======  ====================================================

With maps between 0 and 1 and without the factor the released SAMD is at most 1/8 and nearly inert; raw sums over time
and channels drive the softmax into saturation. Also in the code and not here: the teacher is never set to evaluation,
and the student's last LIF is a ReLU (F then is no spike map).
"""

from typing import TYPE_CHECKING

from sastc.checks import ConfigError, check
from sastc.methods import Batch, Method, option
from sastc.methods.kdsnn import last_map

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sastc.config import RunConfig

VERSIONS = ("per_image", "paper", "released")


class CKDSNN(Method):
    """``L = CE(z̄, y) + β SAMD + γ NLD``: :func:`activation_divergence` and :func:`smoothed_divergence`."""

    name, label, colour, marker = "ckdsnn", "CKDSNN", "#999933", "8"
    needs = ("teacher_logits", "teacher_features")
    map_weight: float = option(1.0, "weight β of the divergence of activation maps (SAMD)", low=0)
    noise_weight: float = option(1.0, "weight γ of the divergence of noise-smoothed logits (NLD)", low=0)
    version: str = option(
        "per_image", "maps scaled for each image, all as in the paper, or all as released", choices=VERSIONS
    )

    @classmethod
    def check(cls, config: "RunConfig") -> None:
        """A class activation map needs an average over pixels and one linear layer behind it."""
        if config.teacher in ("vgg11", "vggsnn"):
            raise ConfigError(
                f"teacher={config.teacher!r}: method ckdsnn needs a teacher that ends in an average over pixels and "
                "one linear layer, as all but VGG-11 and VGGSNN do"
            )

    def check_teacher(self, teacher: "nn.Module") -> None:
        """One linear layer behind the channels of the last candidate layer."""
        shapes, channels = [tuple(w.shape) for w in _weights(teacher)], teacher.feature_shapes()[-1][0]
        valid = len(shapes) == 1 and shapes[0][1] == channels
        check("teacher's classifier", shapes, valid, f"one linear layer of {channels} inputs for method ckdsnn")

    def losses(self, batch: Batch) -> "dict[str, Tensor]":
        """Parts: without their weights "activation_divergence" (SAMD) and "smoothed_divergence" (NLD)."""
        import torch

        (weight,) = _weights(batch.teacher)
        saliency = class_activation(last_map(batch), weight, batch.teacher_logits)
        samd = activation_divergence(batch.features[-1], saliency, self.version)
        noise = torch.randn(batch.logits.shape, device=batch.logits.device)
        nld = smoothed_divergence(batch.logits, batch.teacher_logits, noise, self.version)
        loss = batch.cross_entropy + self.map_weight * samd + self.noise_weight * nld
        return {"activation_divergence": samd, "smoothed_divergence": nld, "loss": loss}


def _weights(teacher: "nn.Module") -> "list[Tensor]":
    return [p for p in teacher.classifier.parameters() if p.dim() == 2]


def class_activation(target: "Tensor", weight: "Tensor", teacher_logits: "Tensor") -> "Tensor":
    """``M = ReLU(Σ_c W[ŷ, c] G_c)`` with ŷ the class that the teacher sees: ``(B, H, W)``, no gradient.

    Up to a factor the Grad-CAM of a network that ends in an average over pixels and a linear layer W ``(N, C)``. G is
    the teacher's last map, ``(B, C, H, W)``; its logits are ``(B, N)``.

    Raises
    ------
    ValueError
        W is not of as many channels as G: the teacher does not end in an average and one linear layer.
    """
    from sastc.losses import exact

    shape, channels = tuple(weight.shape), target.shape[1]
    allowed = f"(N, {channels}), of one linear layer behind an average over the pixels of the last map"
    check("weight", shape, len(shape) == 2 and shape[1] == channels, allowed)
    rows = exact(weight.detach())[teacher_logits.argmax(-1)]
    return (rows[..., None, None] * exact(target.detach())).sum(1).relu()


def _between_0_and_1(maps: "Tensor", over: tuple[int, ...]) -> "Tensor":
    shifted = maps - maps.amin(over, keepdim=True)
    return shifted / (shifted.amax(over, keepdim=True) + 1e-3)


def activation_divergence(features: "Tensor", saliency: "Tensor", version: str = "per_image") -> "Tensor":
    """SAMD: ``f KL(softmax(M/2) ‖ softmax(S/2))`` over the pixels, the mean over images, with ``S = Σ_t Σ_c F``.

    F is the student's last map, ``(T, B, C, H, W)``, M that of :func:`class_activation`, ``(B, H', W')``; the larger of
    S and M is averaged down to the other's size. The `version` decides how maps are scaled, and whether f is 2² or 1.
    The batch of "released" is what is computed at once: a process's share, or a micro-batch.
    """
    from sastc.losses import exact, of_one_size, soft_divergence

    seen, target = of_one_size(exact(features).sum((0, 2)).unsqueeze(1), saliency.detach().unsqueeze(1))
    # paper: raw maps, factor 4  released: scaled over the whole batch, no factor
    if version != "paper":
        over = (0, 1, 2, 3) if version == "released" else (1, 2, 3)
        seen, target = _between_0_and_1(seen, over), _between_0_and_1(target, over)
    divergence = soft_divergence(seen.flatten(1), target.flatten(1), 2.0)
    return divergence / 4 if version == "released" else divergence


def smoothed_divergence(
    student_logits: "Tensor", teacher_logits: "Tensor", noise: "Tensor", version: str = "per_image", share: float = 0.1
) -> "Tensor":
    """NLD: KD at temperature 2 with noise on the student's side.

    ``K₂(z̄ + ρ (m + ξ s), u)`` with the mean m and the standard deviation s (n - 1) over an image's classes, both with
    gradient. "released": ``4 KL(σ₂(u) ‖ (1 - ρ) σ₂(z̄) + ρ σ₂(m + ξ s²))``. Logits z̄ and u, without gradient, and the
    noise ξ, drawn anew at every step from N(0, 1), are ``(B, N)``; ρ is `share`, 0.1 in paper and code.
    """
    from torch.nn.functional import kl_div

    from sastc.losses import exact, soft_divergence

    z = exact(student_logits)
    mean, deviation = z.mean(-1, keepdim=True), z.std(-1, keepdim=True)
    # paper: noise on the logits, deviation s  released: on the probabilities, s squared
    if version != "released":
        return soft_divergence(z + share * (mean + noise * deviation), teacher_logits, 2.0)
    noisy = (mean + noise * deviation.square()) / 2
    mixed = (1 - share) * (z / 2).softmax(-1) + share * noisy.softmax(-1)
    return 4 * kl_div(mixed.log(), (exact(teacher_logits).detach() / 2).softmax(-1), reduction="batchmean")
