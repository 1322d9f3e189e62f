"""Spatio-temporal mismatch score (Eq. 1) against plain loops and numbers worked out by hand."""

import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sastc.calibration import layer_pairs, similarity
from sastc.stm import pair_mismatch, stm_from_mismatch, stm_score


def features(steps=2, batch=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student = [torch.rand(steps, batch, *s, generator=generator, dtype=torch.float64).round() for s in STUDENTS]
    teacher = [torch.randn(batch, *s, generator=generator, dtype=torch.float64) for s in TEACHERS]
    return student, teacher


STUDENTS, TEACHERS = [(2, 3, 3), (3, 2, 2)], [(2, 4, 4), (3, 3, 3), (1, 2, 2)]


def column(*values):
    """One feature of one pixel for each instance: (B, 1, 1, 1)."""
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)


# By hand. Student (1, 0): A = [[1, 0], [0, 0]]. Teacher (1, 2): A = [[1, 2], [2, 4]]. Differences 0, 2, 2, 4.
# MSE = (0 + 4 + 4 + 16) / 4 = 6, Euclidean distance = sqrt(24).


def test_one_pair_by_hand():
    student, teacher = [column(1, 0)[None]], [column(1, 2)]
    assert stm_score(student, teacher, log_base="none") == pytest.approx(6)
    assert stm_score(student, teacher) == pytest.approx(math.log(6))
    assert stm_score(student, teacher, log_base=2) == pytest.approx(math.log2(6))
    assert stm_score(student, teacher, log_base=10) == pytest.approx(math.log10(6))
    assert stm_score(student, teacher, distance="euclidean", log_base="none") == pytest.approx(math.sqrt(24))


def test_log_of_the_mean_over_steps_and_pairs():
    # second step (1, 2): equals teacher 0; teacher 1 (0, 0) is [[0, 0], [0, 0]].
    # step 0: 6 and 1/4; step 1: 0 and (1 + 4 + 4 + 16) / 4 = 6.25. Mean 12.5 / 4
    student, teacher = [torch.stack([column(1, 0), column(1, 2)])], [column(1, 2), column(0, 0)]
    mismatch = pair_mismatch(similarity(student[0])[:, None], torch.stack([similarity(f) for f in teacher]))
    assert mismatch.tolist() == [[[6, 0.25]], [[0, 6.25]]]
    assert stm_score(student, teacher) == pytest.approx(math.log(3.125))
    assert stm_score(student, teacher, pairs=[(0, 1)]) == pytest.approx(math.log(3.25))
    # weights 3 : 1 in step 0, 1 : 1 in step 1: (18 + 0.25 + 0 + 6.25) / 6
    weights = torch.tensor([[[3.0, 1.0]], [[1.0, 1.0]]])
    assert stm_score(student, teacher, weights=weights, log_base="none") == pytest.approx(24.5 / 6)


def test_published_magnitude():
    """Scores near 16.6 are natural logarithms of a mean square near 1.6e7, raw dot products some 4000 apart."""
    mismatch = torch.full((3, 5, 4), 4000.0**2)
    assert stm_from_mismatch(mismatch) == pytest.approx(2 * math.log(4000))
    assert 16.5 < stm_from_mismatch(mismatch) < 17


# Against loops


@pytest.mark.parametrize("kind", ["mse", "euclidean"])
@pytest.mark.parametrize("base", ["e", 2, 10, "none"])
def test_score_against_loops(kind, base):
    student, teacher = features()
    arrays = [f.numpy() for f in student], [f.numpy() for f in teacher]
    log_base = None if base == "none" else base
    for pairs in (None, [(0, 0), (1, 2)], [(1, 1)]):
        ours = stm_score(student, teacher, pairs=pairs or "all", distance=kind, log_base=base)
        assert ours == pytest.approx(reference.stm_score(*arrays, pairs, kind=kind, log_base=log_base), rel=1e-11)


@pytest.mark.parametrize("kind", ["mse", "euclidean"])
def test_mismatch_against_loops(kind):
    student, teacher = features()
    students = torch.stack([similarity(f) for f in student], 1)
    teachers = torch.stack([similarity(f) for f in teacher])
    ours = pair_mismatch(students, teachers, kind)
    assert ours.shape == (2, 2, 3)
    np.testing.assert_allclose(ours, reference.pair_mismatch(students.numpy(), teachers.numpy(), kind), rtol=1e-12)


def test_large_counts_are_averaged_in_float64():
    """Float32 similarities of real size: the average over many pairs loses nothing visible."""
    mismatch = 1e7 * torch.rand(7, 5, 4, generator=torch.Generator().manual_seed(0))
    expected = math.log(sum(mismatch.double().flatten().tolist()) / mismatch.numel())
    assert stm_from_mismatch(mismatch) == pytest.approx(expected, rel=1e-14)


# Properties


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_properties(seed):
    student, teacher = features(seed=seed)
    score = stm_score(student, teacher)
    rng = np.random.default_rng(seed)
    near = pytest.approx(score, rel=1e-9)
    batch, steps = torch.from_numpy(rng.permutation(4)), torch.from_numpy(rng.permutation(2))
    assert stm_score([f[:, batch] for f in student], [f[batch] for f in teacher]) == near
    assert stm_score([f[steps] for f in student], teacher) == near
    assert stm_score(student[::-1], teacher[::-1]) == near
    assert stm_score([f.flip(2) for f in student], [f.flip(-1) for f in teacher]) == near  # channels, pixels
    assert stm_score([-f for f in student], teacher) == near
    assert stm_score([2 * f for f in student], [2 * f for f in teacher]) == pytest.approx(score + math.log(16))
    # the Euclidean distance of one pair is B times the root of its MSE
    one = {"pairs": [(0, 1)], "log_base": "none"}
    first = [f[:1] for f in student]
    euclidean = stm_score(first, teacher, distance="euclidean", **one)
    assert euclidean == pytest.approx(4 * math.sqrt(stm_score(first, teacher, **one)))


def test_uniform_weights_change_nothing():
    student, teacher = features()
    assert stm_score(student, teacher, weights=torch.full((2, 2, 3), 0.3)) == pytest.approx(stm_score(student, teacher))


def test_identical_features_score_minus_infinity():
    teacher = [f.round() for f in features()[1]]  # whole numbers: exact in any order of summation
    student = [f.expand(3, *f.shape) for f in teacher]
    diagonal = {"pairs": [(0, 0), (1, 1), (2, 2)]}
    assert stm_score(student, teacher, log_base="none", **diagonal) == 0
    assert stm_score(student, teacher, **diagonal) == -math.inf


def test_features_that_are_nan_match_nothing():
    student, teacher = features()
    student[1][0, 0, 0, 0, 0] = math.nan
    for base in ("e", "none"):
        assert math.isnan(stm_score(student, teacher, log_base=base))
    assert math.isfinite(stm_score(student, teacher, pairs=[(0, 0)]))  # the other layer's


def test_score_is_a_number_without_a_graph():
    student, teacher = features()
    for f in student:
        f.requires_grad_()
    assert isinstance(stm_score(student, teacher), float)


# Candidate pairs


@pytest.mark.parametrize(
    ("students", "teachers", "expected"),
    [
        (3, 3, [0, 1, 2]),
        (4, 3, [0, 1, 1, 2]),  # depths 0, 2/3, 4/3, 2
        (5, 4, [0, 1, 2, 2, 3]),  # depths 0, 3/4, 3/2, 9/4, 3; a tie goes to the deeper layer
        (3, 5, [0, 2, 4]),
        (2, 4, [0, 3]),
        (3, 1, [0, 0, 0]),
    ],
)
def test_one_to_one_pairs_by_relative_depth(students, teachers, expected):
    assert layer_pairs("one_to_one", students, teachers) == list(enumerate(expected))


def test_named_and_listed_pairs():
    assert layer_pairs("all", 2, 3) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert layer_pairs("last", 2, 3) == [(1, 2)]
    assert layer_pairs("1-3,2-1", 2, 3) == layer_pairs([(0, 2), (1, 0)], 2, 3) == [(0, 2), (1, 0)]
    student, teacher = features()
    for name in ("all", "one_to_one", "last", "1-3,2-1"):
        score = stm_score(student, teacher, pairs=name)
        assert score == pytest.approx(stm_score(student, teacher, pairs=layer_pairs(name, 2, 3)))


@pytest.mark.parametrize("pairs", ["", "some", "1", "0-1", "3-1", "1-4", "1-1-1", "1-1,"])
def test_bad_names_of_pairs_name_the_field(pairs):
    with pytest.raises(ValueError, match=r"pairs=.*1\.\.2.*1\.\.3"):
        layer_pairs(pairs, 2, 3)


@pytest.mark.parametrize("pairs", [[], [(2, 0)], [(0, 3)], [(0, -1)], [(0, 1, 2)], [(0,)], [0, 1], [("a", "b")], None])
def test_bad_pairs_are_numbered_from_zero(pairs):
    with pytest.raises(ValueError, match=r"pairs=.*0\.\.1.*0\.\.2"):
        layer_pairs(pairs, 2, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"distance": "l1"}, ("distance", "l1", "mse", "euclidean")),
        ({"log_base": 3}, ("log_base", "3", "e", "2", "10", "none")),
        ({"pairs": "first"}, ("pairs", "first", "one_to_one")),
    ],
)
def test_errors_name_field_value_and_choices(options, words):
    with pytest.raises(ValueError, match=words[0]) as error:
        stm_score(*features(), **options)
    assert all(word in str(error.value) for word in words)


VECTOR = r"must be .*\(B, C, H, W\).*f\[\.\.\., None, None\]"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            lambda s, t: ([f.flatten(2) for f in s], t),
            r"student_features: shapes \[\(2, 4, 18\), \(2, 4, 12\)\], must be \(T",
        ),
        (
            lambda s, t: ([f[0] for f in s], t),
            r"student_features: shapes \[\(4, 2, 3, 3\), .*must be \(T, B, C, H, W\)",
        ),
        (lambda s, t: (s, [f.flatten(1) for f in t]), r"teacher_features: shapes \[\(4, 32\), .*" + VECTOR),
        (lambda s, t: (s, [t[0][None].expand(2, -1, -1, -1, -1), *t[1:]]), "teacher_features: shapes .*must be all"),
        (lambda s, t: (s, [f[0] for f in t]), r"teacher_features: shapes \[\(2, 4, 4\)"),
        (lambda s, t: ([f[:, :1] for f in s], t), r"batches of \[1, 4\]"),
        (lambda s, t: ([s[0], s[1][:1]], t), r"time steps \[1, 2\]"),
        (lambda s, t: ([], t), r"student_features: shapes \[\]"),
    ],
)
def test_shapes_that_broadcast_are_errors_all_the_same(changed, message):
    with pytest.raises(ValueError, match=message):
        stm_score(*changed(*features()))


def test_weights_of_each_instance_are_not_those_of_pairs():
    attention = torch.rand(2, 4, 2, 3)  # (T, B, S, A)
    student, teacher = features()
    with pytest.raises(ValueError, match=r"weights=\(2, 4, 2, 3\): must be \(T, S, A\) = \(2, 2, 3\).*mean\(1\)"):
        stm_score(student, teacher, weights=attention)
    assert math.isfinite(stm_score(student, teacher, weights=attention.mean(1)))
