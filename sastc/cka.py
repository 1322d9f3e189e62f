"""Centred kernel alignment of layers (Kornblith et al. 2019), from the similarity matrices of Eq. 3."""

import torch
from torch import Tensor


def linear_cka(student_similarity: Tensor, teacher_similarity: Tensor, *, unbiased: bool = False) -> Tensor:
    """Linear CKA ``(T, S, A)`` of every student layer at every time step with every teacher layer, in float64.

    It is the cosine of the angle between the centred Gram matrices, and does not change when features are scaled,
    rotated or shifted. It is 0 where a layer is dead, that is, gives every instance the same features, and NaN where a
    similarity of either layer is infinite or NaN.

    Parameters
    ----------
    student_similarity, teacher_similarity : Tensor
        Of :func:`sastc.calibration.similarity`: ``(T, S, B, B)``, and ``(A, B, B)`` or ``(T, A, B, B)``.
    unbiased : bool
        Estimate HSIC without bias (Song et al. 2012), as Nguyen et al. (2021) do for small batches; needs B >= 4 and
        may come out negative. The default is biased: two random layers of many features have a CKA near 1.
    """
    students, teachers = student_similarity.shape, teacher_similarity.shape
    sizes = {*students[-2:], *teachers[-2:]}
    if len(students) != 4 or teachers[:-3] not in ((), students[:1]) or len(teachers) < 3 or len(sizes) != 1:
        raise ValueError(
            f"student_similarity of shape {tuple(students)}, teacher_similarity of shape {tuple(teachers)}: "
            "must be (T, S, B, B) and (A, B, B) or (T, A, B, B)"
        )
    if unbiased and students[-1] < 4:
        raise ValueError(f"batch of {students[-1]} instances: must be at least 4 for unbiased=True")
    student, teacher = (_direction(k, unbiased) for k in (student_similarity, teacher_similarity))
    return torch.einsum("tsij,aij->tsa" if teacher.dim() == 3 else "tsij,taij->tsa", student, teacher)


def _direction(gram: Tensor, unbiased: bool) -> Tensor:
    """Centred Gram matrices ``(..., B, B)`` divided by their Frobenius norm; 0 where it is no more than rounding."""
    k, n = gram.double(), gram.shape[-1]
    if unbiased:  # U-centring (Székely & Rizzo 2014): its dot product is Song's estimate times n (n - 3)
        k = k - torch.diag_embed(k.diagonal(dim1=-2, dim2=-1))
        rows = k.sum(-1, keepdim=True)
        centred = k - (rows + rows.mT) / (n - 2) + rows.sum(-2, keepdim=True) / ((n - 1) * (n - 2))
        centred = centred - torch.diag_embed(centred.diagonal(dim1=-2, dim2=-1))
    else:
        rows = k.mean(-1, keepdim=True)
        centred = k - rows - rows.mT + rows.mean(-2, keepdim=True)
    size, rounding = (torch.linalg.matrix_norm(m, keepdim=True) for m in (centred, gram.double()))
    dead = size <= 10 * torch.finfo(gram.dtype).eps * rounding
    return centred / size.masked_fill(dead, torch.inf)
