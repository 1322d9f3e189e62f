"""What recorded attention weights can be; needs no torch, so that pages of recorded runs load fast."""

import math


def attention_bounds(
    teachers: int, qk_norm: bool = True, score_scale: float = 1.0, attention: str = "learned"
) -> tuple[float, float]:
    """Smallest and largest weight that Eq. 5 can give among so many teacher layers.

    Normalised queries and keys bound the scores by ±score_scale, so no layer can be chosen outright: with three teacher
    layers every weight lies within 0.063 and 0.787. Without the normalisation the bounds are 0 and 1, and so they are
    with the controls that put all weight on one layer (`attention` "easiest" and "hardest").
    """
    if not qk_norm or attention in ("easiest", "hardest"):
        return 0.0, 1.0
    e = math.exp(min(2 * abs(score_scale), 700))  # more is too large for a float
    return 1 / (1 + (teachers - 1) * e), e / (e + teachers - 1)
