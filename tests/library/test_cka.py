"""CKA from similarity matrices against the formula on features, in loops, and numbers worked out by hand."""

import itertools

import numpy as np
import pytest
import torch

from sastc.calibration import similarity
from sastc.cka import linear_cka

STUDENTS, TEACHERS = [(2, 3, 3), (3, 2, 2)], [(2, 4, 4), (3, 3, 3), (1, 2, 2)]


def features(steps=2, batch=6, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    student = [torch.rand(steps, batch, *s, generator=generator, dtype=dtype).round() for s in STUDENTS]
    teacher = [torch.randn(batch, *s, generator=generator, dtype=dtype) + 1 for s in TEACHERS]
    return student, teacher


def grams(student, teacher):
    return torch.stack([similarity(f) for f in student], 1), torch.stack([similarity(f) for f in teacher])


def feature_cka(x, y):
    """‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) of the centred features (Kornblith et al. 2019, Eq. 7), one product at a time."""
    x, y = (f.reshape(len(f), -1).numpy() - f.reshape(len(f), -1).numpy().mean(0) for f in (x, y))

    def squared(a, b):
        return sum(
            sum(a[n, i] * b[n, j] for n in range(len(a))) ** 2 for i in range(a.shape[1]) for j in range(b.shape[1])
        )

    return squared(y, x) / np.sqrt(squared(x, x) * squared(y, y))


def hsic(k, l):  # noqa: E741
    """Mean of k_ij (l_ij + l_qr - 2 l_iq) over all quadruples of different instances: no bias by construction."""
    quadruples = list(itertools.permutations(range(len(k)), 4))
    return sum(k[i][j] * (l[i][j] + l[q][r] - 2 * l[i][q]) for i, j, q, r in quadruples) / len(quadruples)


def test_against_features_in_loops():
    student, teacher = features()
    ours = linear_cka(*grams(student, teacher))
    assert ours.shape == (2, 2, 3)
    assert ours.dtype == torch.float64
    for t, s, a in np.ndindex(*ours.shape):
        assert ours[t, s, a].item() == pytest.approx(feature_cka(student[s][t], teacher[a]), rel=1e-11)
    assert 0.05 < ours.min() < ours.max() < 0.95


def test_unbiased_against_all_quadruples():
    students, teachers = grams(*features())
    ours = linear_cka(students, teachers, unbiased=True)
    for t, s, a in np.ndindex(*ours.shape):
        k, l = students[t, s].tolist(), teachers[a].tolist()  # noqa: E741
        assert ours[t, s, a].item() == pytest.approx(
            hsic(k, l) / (hsic(k, k) * hsic(l, l)) ** 0.5, rel=1e-10, abs=1e-12
        )


def test_one_pair_by_hand():
    # x = (1, 0, 0), y = (1, 2, 0): centred (2, -1, -1)/3 and (0, 1, -1); x·y = 0, so CKA = 0.
    # y = (3, 0, 0): proportional, CKA = 1. y = (2, 1, 0): correlation² = 3/4.
    def gram(*values):
        return torch.outer(torch.tensor(values, dtype=torch.float64), torch.tensor(values, dtype=torch.float64))

    teachers = torch.stack([gram(1, 2, 0), gram(3, 0, 0), gram(2, 1, 0)])
    assert linear_cka(gram(1, 0, 0)[None, None], teachers)[0, 0].tolist() == pytest.approx([0, 1, 3 / 4])


@pytest.mark.parametrize("unbiased", [False, True])
def test_invariance(unbiased):
    student, teacher = features(batch=8)
    expected = linear_cka(*grams(student, teacher), unbiased=unbiased)
    moved = [3 * f + 0.5 for f in student]
    rotation = torch.linalg.qr(torch.randn(32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))[0]
    turned = [(teacher[0].flatten(1) @ rotation).view_as(teacher[0]), *teacher[1:]]
    torch.testing.assert_close(linear_cka(*grams(moved, turned), unbiased=unbiased), expected)
    order = torch.tensor([3, 1, 7, 0, 2, 6, 4, 5])
    shuffled = [f[:, order] for f in student], [f[order] for f in teacher]
    torch.testing.assert_close(linear_cka(*grams(*shuffled), unbiased=unbiased), expected)
    itself = linear_cka(*grams([student[0]], list(student[0])), unbiased=unbiased)
    torch.testing.assert_close(itself.squeeze(1).diagonal(), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dead_layers_give_zero(unbiased, dtype):
    student, teacher = features(dtype=dtype)
    student[0][0] = 0  # silent at the first step
    student[1][1] = student[1][1, :1]  # the same spikes for every instance
    teacher[1] = teacher[1][:1].expand_as(teacher[1]).clone()
    ours = linear_cka(*grams(student, teacher), unbiased=unbiased)
    dead = torch.zeros(2, 2, 3, dtype=torch.bool)
    dead[0, 0] = dead[1, 1] = dead[:, :, 1] = True
    assert torch.equal(ours == 0, dead)
    assert ours.isfinite().all()
    assert ours.dtype == torch.float64


def test_one_spike_of_many_is_not_dead():
    spikes = torch.ones(1, 8, 64, 8, 8)
    spikes[0, 0, 0, 0, 0] = 0
    assert linear_cka(similarity(spikes)[None], similarity(spikes)).item() == pytest.approx(1)


def test_bias_of_unrelated_features():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(200, 8, 30, 1, 1, generator=generator) for _ in range(2))
    for unbiased, low, high in ((False, 0.7, 0.9), (True, -0.05, 0.05)):
        mean = torch.stack(
            [
                linear_cka(similarity(a)[None, None], similarity(b)[None], unbiased=unbiased)
                for a, b in zip(x, y, strict=True)
            ]
        ).mean()
        assert low < mean < high


@pytest.mark.parametrize(
    ("student", "teacher"), [((2, 3, 3), (1, 3, 3)), ((1, 1, 3, 3), (1, 4, 4)), ((1, 1, 3, 4), (1, 3, 4))]
)
def test_bad_shapes(student, teacher):
    with pytest.raises(ValueError, match=r"student_similarity of shape .*must be \(T, S, B, B\) and \(A, B, B\)"):
        linear_cka(torch.zeros(student), torch.zeros(teacher))


def test_unbiased_needs_four_instances():
    with pytest.raises(ValueError, match="3 instances: must be at least 4"):
        linear_cka(torch.zeros(1, 1, 3, 3), torch.zeros(1, 3, 3), unbiased=True)
