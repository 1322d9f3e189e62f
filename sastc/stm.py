"""Spatio-temporal mismatch score (Eq. 1)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sastc import distributed
from sastc.calibration import SelfAttentiveCalibration, layer_pairs
from sastc.checks import check, check_one_of
from sastc.fields import choices

LOG_BASES = {"e": math.e, "2": 2.0, "10": 10.0, "none": None}


def pair_mismatch(student_similarity: Tensor, teacher_similarity: Tensor, distance: str = "mse") -> Tensor:
    """Distance ``(T, S, A)`` between the similarity matrices of every pair of layers at every time step.

    The matrices are ``(T, S, B, B)``, and ``(A, B, B)``, or ``(T, A, B, B)`` of a teacher that sees each step's frame.
    `distance` is "mse", the mean squared difference of the entries (Eq. 1 as written), or "euclidean", the Frobenius
    norm (its name in the text). It is infinite or NaN where an entry is, and NaN where both have the same infinity.
    """
    check_one_of("distance", distance, choices("stm_distance"))
    teacher = teacher_similarity.unsqueeze(-3).unbind(-4)  # A of (1, B, B), or (T, 1, B, B)
    squared = torch.stack([(student_similarity - a).square().mean((-2, -1)) for a in teacher], -1)
    return squared if distance == "mse" else squared.sqrt() * student_similarity.shape[-1]


def stm_from_mismatch(
    mismatch: Tensor,
    *,
    pairs: str | Sequence[tuple[int, int]] = "all",
    weights: Tensor | None = None,
    log_base: str | int = "e",
) -> float:
    """Eq. 1 from the mismatch ``(T, S, A)`` of every pair: the logarithm of its mean over time and pairs.

    `weights` ``(T, S, A)`` of at least 0, for example the mean attention, weights the pairs; `log_base` is e, 2, 10 or
    none. Infinite mismatch gives an infinite score, or NaN with a weight of 0; NaN, or weights that are all 0, NaN.
    """
    check_one_of("log_base", str(log_base), LOG_BASES)
    s, a = zip(*layer_pairs(pairs, *mismatch.shape[1:]), strict=True)
    chosen = mismatch.double()[:, list(s), list(a)]
    if weights is None:
        mean = chosen.mean().item()
    else:
        shape, expected = tuple(weights.shape), tuple(mismatch.shape)
        check("weights", shape, shape == expected, f"(T, S, A) = {expected}: of attention (T, B, S, A) take .mean(1)")
        check("weights", weights.min().item(), not (weights < 0).any(), ">= 0")  # NaN of a diverged run goes on
        chosen_weights = weights.double()[:, list(s), list(a)]
        mean = ((chosen * chosen_weights).sum() / chosen_weights.sum()).item()
    if (base := LOG_BASES[str(log_base)]) is None:
        return mean
    return -math.inf if mean == 0 else math.log(mean) / math.log(base)  # the logarithm of NaN is NaN


class MeanMismatch:
    """Mismatch of every pair of layers, by distance: the mean over batches and over all processes."""

    def __init__(self) -> None:
        self._squared: list[Tensor] = []  # (T, S, A) a batch, over this process's rows
        self._rows: list[tuple[float, int]] = []  # their share of all processes' rows, and their length

    def add(self, student_similarity: Tensor, teacher_similarity: Tensor, instances: int) -> None:
        """Add the matrices of a batch of `instances` over all processes, or this process's rows of them."""
        self._squared.append(pair_mismatch(student_similarity, teacher_similarity))
        rows, columns = student_similarity.shape[-2:]
        self._rows.append((rows / instances, columns))

    def means(self) -> dict[str, Tensor]:
        """``(T, S, A)`` for each distance."""
        squared = torch.stack(self._squared)
        share, columns = torch.tensor(self._rows, dtype=squared.dtype, device=squared.device).T.view(2, -1, 1, 1, 1)
        squared = distributed.total(share * squared)
        return {"mse": squared.mean(0), "euclidean": (squared.sqrt() * columns).mean(0)}


def stm_score(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    *,
    pairs: str | Sequence[tuple[int, int]] = "all",
    distance: str = "mse",
    weights: Tensor | None = None,
    log_base: str | int = "e",
) -> float:
    """Spatio-temporal mismatch score of one batch (Eq. 1); lower is a better match, and ``-inf`` a perfect one.

    It is NaN where a feature is NaN, and infinite or NaN where one is infinite.

    Parameters
    ----------
    student_features, teacher_features : sequence of Tensor
        S spike maps ``(T, B, C, H, W)``, and A feature maps ``(B, C, H, W)`` or ``(T, B, C, H, W)``.
    pairs : str or sequence of (int, int)
        Candidate pairs C', see :func:`sastc.calibration.layer_pairs`.
    distance : {"mse", "euclidean"}
        See :func:`pair_mismatch`.
    weights : Tensor, optional
        ``(T, S, A)`` weights of the pairs; uniform by default.
    log_base : {"e", 2, 10, "none"}
        The paper says "log-scale" without a base; its values fit the natural logarithm.

    Raises
    ------
    ValueError
        Maps or weights of other shapes, a negative weight, or a value that is not allowed.
    """
    mismatch = pair_mismatch(*SelfAttentiveCalibration.similarities(student_features, teacher_features), distance)
    return stm_from_mismatch(mismatch, pairs=pairs, weights=weights, log_base=log_base)
