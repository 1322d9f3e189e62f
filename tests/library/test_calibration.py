"""Similarity, attention and projected distances (Eq. 2-5) against plain loops, and the properties they must have."""

import math

import numpy as np
import pytest
import reference
import torch
from calibrations import (
    BATCH,
    STEPS,
    STUDENTS,
    TEACHERS,
    agree,
    as_numpy,
    build,
    features,
    loops,
    projectors_of,
    weights_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from sastc.calibration import LayerDistances, SelfAttentiveCalibration, _max_pool, similarity
from sastc.losses import sastc_loss

FEATURE_GRADIENT_ENTRIES = 12


def without_projection(*args, **options):
    """Module whose projectors are the identity (the layers' channels must then be equal)."""
    module = build(*args, **options)
    module.distances.projectors = nn.ModuleList(nn.Identity() for _ in module.distances.projectors)
    return module


# Eq. 3


def test_similarity_by_hand():
    f = torch.tensor([[[[1.0, 2.0]]], [[[0.0, -1.0]]], [[[3.0, 0.0]]]])  # three instances of 1 x 1 x 2
    assert similarity(f).tolist() == [[5, -2, 3], [-2, 1, 0], [3, 0, 9]]


def test_similarity_keeps_time_apart_and_matches_loops():
    f = torch.randn(3, 4, 2, 3, 5, dtype=torch.float64)
    ours = similarity(f)
    assert ours.shape == (3, 4, 4)
    for t in range(3):
        np.testing.assert_allclose(ours[t], reference.similarity(f[t].numpy()), rtol=1e-12)


def test_similarity_of_spikes_counts_in_float32():
    spikes = torch.ones(2, 1, 32, 33, dtype=torch.bfloat16)  # bfloat16 itself would make 1056 of 1055
    spikes[1, 0, 0, 0] = 0
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        assert similarity(spikes.to(dtype)).tolist() == [[1056, 1055], [1055, 1055]]


def test_similarity_counts_exactly_under_autocast():
    spikes = torch.ones(2, 1, 32, 33)
    spikes[1, 0, 0, 0] = 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert similarity(spikes).tolist() == [[1056, 1055], [1055, 1055]]


# Forward against loops


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"qk_norm": False},
        {"score_scale": 3.0, "mlp_sharing": "shared"},
        {"sim_norm": "row_l2"},
        {"sim_order": "sorted"},
        {"sim_norm": "row_l2", "sim_order": "sorted", "detach_sim": True},
        {"resize_student": "avg"},
        {"small_student": "upsample_student"},
        {"resize_student": "avg", "small_student": "upsample_student", "projector_bn": "none"},
        {"projector_bn": "folded"},
        {"projector_bn": "none"},
    ],
    ids=lambda options: ",".join(f"{key}={value}" for key, value in options.items()) or "default",
)
@pytest.mark.parametrize("batch", [BATCH, 3])
def test_forward_against_loops(options, batch):
    module = build(**options)
    student, teacher = features(batch=batch)
    agree(module(student, teacher), loops(as_numpy(student), as_numpy(teacher), weights_of(module), BATCH, **options))


@pytest.mark.parametrize(
    ("students", "teachers", "steps"),
    [
        ([(1, 3, 3)], [(1, 3, 3)], 1),
        ([(2, 5, 5)], [(1, 2, 2), (2, 7, 7), (3, 5, 5), (1, 1, 1)], 3),
        ([(1, 2, 2), (2, 3, 3), (1, 1, 1)], [(2, 2, 2)], 2),
        ([(1, 4, 6)], [(2, 2, 3), (1, 8, 12)], 1),
    ],
)
def test_layer_counts_resolutions_and_steps(students, teachers, steps):
    module = build(students, teachers)
    student, teacher = features(students, teachers, steps)
    ours = module(student, teacher)
    assert ours.attention.shape == ours.distances.shape == (steps, BATCH, len(students), len(teachers))
    agree(ours, loops(as_numpy(student), as_numpy(teacher), weights_of(module), BATCH))


def test_map_smaller_in_width_alone_is_not_enlarged():
    """Equal heights, narrower target: the student is the larger map and is pooled."""
    students, teachers = [(1, 3, 6)], [(1, 3, 2)]
    module = build(students, teachers)
    student, teacher = features(students, teachers)
    agree(module(student, teacher), loops(as_numpy(student), as_numpy(teacher), weights_of(module), BATCH))


def test_defaults_follow_the_released_code():
    module = SelfAttentiveCalibration(STUDENTS, TEACHERS, 128)
    query = module.query[0]
    assert (query[0].in_features, query[0].out_features, query[2].out_features) == (128, 64, 32)
    assert len({id(m) for m in module.query}) == len(STUDENTS)
    assert len({id(m) for m in module.key}) == len(TEACHERS)
    projector = projectors_of(module)[0, 1]
    assert projector.conv3.weight.shape == (6, 2, 3, 3)
    assert projector.conv1.weight.shape == (3, 6, 1, 1)
    assert projector.conv3.bias is None
    assert projector.conv1.bias is None


def test_parameter_count():
    def count(**options):
        module = SelfAttentiveCalibration(STUDENTS, TEACHERS, 8, **options)
        return sum(p.numel() for p in module.parameters())

    mlp = (8 * 4 + 4) + (4 * 2 + 2)
    pairs = sum(2 * a * s * 9 + 2 * a * 2 + 2 * a * a for s in (2, 3) for a in (2, 3, 2))
    assert count() == 5 * mlp + pairs
    assert count(mlp_sharing="shared") == 2 * mlp + pairs


def test_evaluation_uses_running_statistics_of_every_step():
    module = build([(1, 2, 2)], [(1, 2, 2)])
    student, teacher = features([(1, 2, 2)], [(1, 2, 2)], steps=3)
    module(student, teacher)
    projector = projectors_of(module)[0, 0]
    kernel, mean = projector.conv3.weight.detach().numpy(), np.zeros(2)
    for step in as_numpy(student)[0]:  # one update a step, momentum 0.1
        mean = 0.9 * mean + 0.1 * reference.convolve(step, kernel).mean((0, 2, 3))
    np.testing.assert_allclose(projector.norm.running_mean, mean, rtol=1e-12)
    module.eval()
    together = module(student, teacher).distances
    alone = module([f[:, :1] for f in student], [f[:1] for f in teacher]).distances
    torch.testing.assert_close(alone, together[:, :1])


# Gradients: differences of the reference against autograd of the library


def gradients(options, names, loss_weights, batch=BATCH):
    """Pairs (autograd, differences) for chosen entries of student features and named weights."""
    module = build(**options)
    student, teacher = features(batch=batch, seed=3)
    for f in (*student, *teacher):
        f.requires_grad_()
    ours = module(student, teacher)
    (torch.from_numpy(loss_weights) * ours.attention * ours.distances).sum().backward()
    numpy_student, numpy_teacher, weights = as_numpy(student), as_numpy(teacher), weights_of(module)
    frozen = [f.copy() for f in numpy_student] if options.get("detach_sim") else None

    def loss():
        attention, distances, _, _ = loops(numpy_student, numpy_teacher, weights, BATCH, similar=frozen, **options)
        return (loss_weights * attention * distances).sum()

    rng = np.random.default_rng(5)

    def differences(array, count):
        flat = rng.choice(array.size, min(count, array.size), replace=False)
        entries = [np.unravel_index(n, array.shape) for n in flat]

        def at(values):
            keep = array.copy()
            array[...] = values
            result = loss()
            array[...] = keep
            return result

        where = tuple(np.array(entries).T)
        return where, reference.numerical_gradient(at, array, entries)[where]

    found = []
    for tensor, array in zip(student, numpy_student, strict=True):
        where, expected = differences(array, FEATURE_GRADIENT_ENTRIES)
        found.append((tensor.grad[where], expected))
    parameters = dict(module.named_parameters())
    for name in names:
        # the module's own memory, so that the reference sees the moved entry
        where, expected = differences(parameters[name].detach().numpy(), 6)
        found.append((parameters[name].grad[where], expected))
    return found, teacher


WEIGHTS = ("query.1.0.weight", "query.0.2.bias", "key.2.0.bias", "key.0.2.weight")
PROJECTIONS = ("distances.projectors.1.conv3.weight", "distances.projectors.3.conv1.weight")
BATCH_NORMS = ("distances.projectors.2.norm.weight", "distances.projectors.5.norm.bias")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, WEIGHTS + PROJECTIONS + BATCH_NORMS),
        ({"detach_sim": True}, WEIGHTS[:2] + PROJECTIONS[:1]),
        ({"projector_bn": "folded", "small_student": "upsample_student"}, PROJECTIONS + BATCH_NORMS),
        ({"projector_bn": "none", "resize_student": "avg", "sim_norm": "row_l2"}, WEIGHTS[:1] + PROJECTIONS),
        ({"qk_norm": False, "score_scale": 0.1, "sim_order": "sorted"}, WEIGHTS[2:] + PROJECTIONS[:1]),
    ],
)
def test_gradients_against_differences(options, names):
    found, teacher = gradients(options, names, np.random.default_rng(1).normal(size=(STEPS, BATCH, 2, 3)))
    assert sum(np.abs(expected).max() > 1e-6 for _, expected in found) >= len(found) - 1  # a ReLU may be dead
    for ours, expected in found:
        np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=2e-6)
    assert all(f.grad is None for f in teacher)


def test_detach_sim_removes_the_path_through_attention_only():
    grads = {}
    for detach in (False, True):
        module = build(detach_sim=detach)
        student, teacher = features()
        for f in student:
            f.requires_grad_()
        attention = module(student, teacher).attention
        attention.square().sum().backward()
        grads[detach] = [f.grad for f in student]
        assert all(p.grad.abs().sum() > 0 for p in module.query.parameters())
    assert all(g is None for g in grads[True])
    assert all(g.abs().sum() > 0 for g in grads[False])


def test_detach_sim_leaves_the_values_alone():
    student, teacher = features()
    for ours, theirs in zip(build()(student, teacher), build(detach_sim=True)(student, teacher), strict=True):
        assert torch.equal(ours, theirs)


# Symmetries


def batch_permutation(seed=0):
    return torch.from_numpy(np.random.default_rng(seed).permutation(BATCH))


def permuted_batch(student, teacher, order):
    return [f[:, order] for f in student], [f[order] for f in teacher]


def test_batch_permutation_with_permuted_input_columns():
    """Rows keep batch order, so the first MLP layers' columns must move with the instances."""
    order = torch.tensor([2, 0, 3, 1])
    module, moved = build(), build()
    with torch.no_grad():
        for mlp in (*moved.query, *moved.key):
            mlp[0].weight.copy_(mlp[0].weight[:, order])
    student, teacher = features()
    before, after = module(student, teacher), moved(*permuted_batch(student, teacher, order))
    torch.testing.assert_close(after.attention, before.attention[:, order])
    torch.testing.assert_close(after.student_similarity, before.student_similarity[..., order, :][..., order])
    unmoved = module(*permuted_batch(student, teacher, order))
    assert (unmoved.attention - before.attention[:, order]).abs().max() > 1e-3  # the columns do matter


@pytest.mark.parametrize("bn", ["per_step", "folded", "none"])
def test_batch_permutation_moves_distances(bn):
    order = torch.tensor([2, 0, 3, 1])
    module = build(projector_bn=bn)
    student, teacher = features()
    moved = module(*permuted_batch(student, teacher, order)).distances
    torch.testing.assert_close(moved, module(student, teacher).distances[:, order])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["none", "row_l2"]))
def test_sorted_rows_make_attention_equivariant(seed, sim_norm):
    module = build(sim_order="sorted", sim_norm=sim_norm)
    student, teacher = features(seed=seed)
    order = batch_permutation(seed)
    moved = module(*permuted_batch(student, teacher, order)).attention
    torch.testing.assert_close(moved, module(student, teacher).attention[:, order])


def test_teacher_permutation_permutes_the_weights():
    order = [2, 0, 1]
    module, moved = build(), build(teachers=[TEACHERS[a] for a in order])
    moved.query.load_state_dict(module.query.state_dict())
    for new, old in enumerate(order):
        moved.key[new].load_state_dict(module.key[old].state_dict())
        for s in range(len(STUDENTS)):
            projectors_of(moved)[s, new].load_state_dict(projectors_of(module)[s, old].state_dict())
    student, teacher = features()
    before, after = module(student, teacher), moved(student, [teacher[a] for a in order])
    torch.testing.assert_close(after.attention, before.attention[..., order])
    torch.testing.assert_close(after.distances, before.distances[..., order])
    torch.testing.assert_close(after.teacher_similarity, before.teacher_similarity[order])


def test_student_permutation_permutes_the_rows():
    module, moved = build(), build(students=STUDENTS[::-1])
    moved.key.load_state_dict(module.key.state_dict())
    for new, old in enumerate((1, 0)):
        moved.query[new].load_state_dict(module.query[old].state_dict())
        for a in range(len(TEACHERS)):
            projectors_of(moved)[new, a].load_state_dict(projectors_of(module)[old, a].state_dict())
    student, teacher = features()
    before, after = module(student, teacher), moved(student[::-1], teacher)
    torch.testing.assert_close(after.attention, before.attention.flip(2))
    torch.testing.assert_close(after.distances, before.distances.flip(2))


@pytest.mark.parametrize("bn", ["per_step", "none"])
def test_time_steps_do_not_see_each_other(bn):
    module = build(projector_bn=bn)
    student, teacher = features(steps=3)
    whole = module(student, teacher)
    for order in ([2, 0, 1], [1]):
        part = module([f[order] for f in student], teacher)
        torch.testing.assert_close(part.attention, whole.attention[order])
        torch.testing.assert_close(part.distances, whole.distances[order])


def test_folded_statistics_do_see_the_other_steps():
    module = build(projector_bn="folded")
    student, teacher = features(steps=2)
    alone = module([f[:1] for f in student], teacher).distances
    assert (alone - module(student, teacher).distances[:1]).abs().max() > 1e-3


# Attention weights


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 1000),
    st.integers(1, 5),
    st.sampled_from([0.0, 1e-4, 1.0, 1e4]),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.sampled_from(["none", "row_l2"]),
)
def test_weights_sum_to_one_within_the_bounds(seed, teachers, magnitude, scale, sim_norm):
    shapes = [(2, 2, 2)] * teachers
    module = build(teachers=shapes, seed=seed, score_scale=scale, sim_norm=sim_norm)
    student, teacher = features(teachers=shapes, seed=seed)
    attention = module([magnitude * f for f in student], teacher).attention
    torch.testing.assert_close(attention.sum(-1), torch.ones_like(attention[..., 0]), rtol=0, atol=1e-12)
    low = math.exp(-scale) / (math.exp(-scale) + (teachers - 1) * math.exp(scale))
    high = math.exp(scale) / (math.exp(scale) + (teachers - 1) * math.exp(-scale))
    assert module.attention_bounds() == pytest.approx((low, high), rel=1e-12)
    assert attention.min() >= low - 1e-12
    assert attention.max() <= high + 1e-12


@pytest.mark.parametrize(("teachers", "bounds"), [(3, (0.063, 0.787)), (4, (0.043, 0.711))])
def test_bounds_by_hand_are_reached(teachers, bounds):
    module = build(teachers=[(1, 1, 1)] * teachers)
    assert module.attention_bounds() == pytest.approx(bounds, abs=5e-4)
    with torch.no_grad():  # every query points along the first axis, one key likewise, the others against it
        for mlp, sign in zip((*module.query, *module.key), [1, 1, 1] + [-1] * (teachers - 1), strict=True):
            mlp[2].weight.zero_()
            mlp[2].bias.copy_(torch.tensor([sign * 7.0, 0, 0]))
    student, teacher = features(teachers=[(1, 1, 1)] * teachers)
    largest = module(student, teacher).attention[..., 0]
    torch.testing.assert_close(largest, torch.full_like(largest, module.attention_bounds()[1]))
    with torch.no_grad():
        for mlp in module.key:
            mlp[2].bias.neg_()
    smallest = module(student, teacher).attention[..., 0]
    torch.testing.assert_close(smallest, torch.full_like(smallest, module.attention_bounds()[0]))


def test_without_normalisation_a_layer_can_be_chosen_outright():
    module = build(qk_norm=False, score_scale=50.0)
    assert module.attention_bounds() == (0.0, 1.0)
    assert module(*features()).attention.max() > 0.999


def test_single_teacher_layer_has_weight_one():
    module = build(teachers=[(2, 2, 2)])
    assert (module(*features(teachers=[(2, 2, 2)])).attention == 1).all()


@pytest.mark.parametrize("sharing", ["per_layer", "shared"])
def test_identical_layers_attract(sharing):
    """With one and the same MLP for queries and keys, equal similarity gives the largest score, q'k = 1."""
    module = build(STUDENTS[:1], TEACHERS, mlp_sharing=sharing)
    for mlp in (*module.query, *module.key):
        mlp.load_state_dict(module.query[0].state_dict())
    student, teacher = features(STUDENTS[:1], TEACHERS)
    teacher[0] = student[0][1].clone()  # teacher layer 0 is what the student says at step 1
    attention = module(student, teacher).attention
    assert (attention[1, :, 0].argmax(-1) == 0).all()
    keys = [[reference.mlp(row, weights_of(module)[1][a]) for row in similarity(teacher[a]).numpy()] for a in range(3)]
    for i in range(BATCH):
        scores = [keys[0][i] @ keys[a][i] for a in range(3)]
        assert scores[0] == pytest.approx(1, abs=1e-12)
        assert attention[1, i, 0, 0].item() == pytest.approx(math.e / sum(math.exp(score) for score in scores))


def test_equal_teacher_layers_share_the_weight():
    module = build(teachers=[(2, 2, 2)] * 3, mlp_sharing="shared")
    student, _ = features()
    f = torch.randn(BATCH, 2, 2, 2, dtype=torch.float64)
    attention = module(student, [f, f, f]).attention
    torch.testing.assert_close(attention, torch.full_like(attention, 1 / 3))


def test_row_norm_makes_attention_blind_to_magnitude():
    student, teacher = features()
    louder = [7 * f for f in student]
    module = build(sim_norm="row_l2")
    torch.testing.assert_close(module(louder, teacher).attention, module(student, teacher).attention)
    raw = build()
    assert (raw(louder, teacher).attention - raw(student, teacher).attention).abs().max() > 1e-3


# Distances


def test_identical_features_have_no_distance():
    shapes = [(2, 3, 3), (2, 2, 2)]
    module = without_projection(shapes, shapes)
    _, teacher = features(shapes, shapes)
    student = [f.expand(STEPS, *f.shape) for f in teacher]
    ours = module(student, teacher)
    for s in (0, 1):
        assert (ours.distances[:, :, s, s] == 0).all()
        assert (ours.distances[:, :, s, 1 - s] > 0).all()


def test_distance_by_hand():
    """2x2 spikes on a 1x1 target: the maximum (or the mean) is compared, and averaged over channels."""
    spikes = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64).expand(1, 1, 2, 2, 2)
    target = torch.tensor([3.0, 1.0], dtype=torch.float64).view(1, 2, 1, 1)
    for resize, expected in (("max", (4 + 0) / 2), ("avg", (2.75**2 + 0.75**2) / 2)):
        module = without_projection([(2, 2, 2)], [(2, 1, 1)], resize_student=resize)
        assert module([spikes], [target]).distances.item() == expected
    # 1x1 spike on a 2x2 target: the target's mean, or the spike repeated
    spike, target = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64), torch.tensor([[1.0, 2.0], [3.0, 6.0]])[None, None]
    for small, expected in (("pool_target", 4.0), ("upsample_student", (0 + 1 + 4 + 25) / 4)):
        module = without_projection([(1, 1, 1)], [(1, 2, 2)], small_student=small)
        assert module([spike], [target.double()]).distances.item() == expected


def test_each_instance_has_its_own_distance():
    module = without_projection([(1, 2, 2)], [(1, 2, 2)])
    student, teacher = features([(1, 2, 2)], [(1, 2, 2)])
    before = module(student, teacher).distances
    teacher[0][2] += 1
    after = module(student, teacher).distances
    assert [(after - before)[:, i].abs().max().item() > 0 for i in range(BATCH)] == [False, False, True, False]


def test_chosen_pairs_alone():
    """Feature KD's distances: any pairs, in the order given, the same pair twice with two projectors."""
    torch.manual_seed(0)
    pairs = [(1, 0), (0, 2), (1, 0)]
    layers = LayerDistances(STUDENTS, TEACHERS, pairs).double()
    student, teacher = features()
    for f in teacher:
        f.requires_grad_()
    ours = layers(student, teacher)
    assert ours.shape == (STEPS, BATCH, 3)
    assert (ours[..., 0] != ours[..., 2]).all()
    for p, (s, a) in enumerate(pairs):
        projector = layers.projectors[p]
        kernels = projector.conv3.weight.detach().numpy(), projector.conv1.weight.detach().numpy()
        weights = (kernels[0], np.ones(len(kernels[0])), np.zeros(len(kernels[0])), kernels[1])
        expected = reference.distance(as_numpy(student)[s], as_numpy(teacher)[a], weights)
        np.testing.assert_allclose(ours[..., p].detach(), expected, rtol=1e-10)
    ours.sum().backward()
    assert all(f.grad is None for f in teacher)


# Controls: weights that are not learned, targets of one size


@pytest.mark.parametrize("source", ["untrained", "uniform", "random", "cka"])
def test_controls_pass_no_gradient_through_the_weights(source):
    module = build(attention=source)
    student, teacher = features()
    for f in student:
        f.requires_grad_()
    result = module(student, teacher)
    assert result.attention.shape == (STEPS, BATCH, len(STUDENTS), len(TEACHERS))
    np.testing.assert_allclose(result.attention.detach().sum(-1), 1, rtol=1e-12)
    assert not result.attention.requires_grad
    (result.attention * result.distances).mean().backward()
    assert all(p.grad is None for mlp in (module.query, module.key) for p in mlp.parameters())
    assert all(f.grad.abs().sum() > 0 for f in student)


def test_untrained_weights_are_the_learned_ones_before_training():
    pair = [build(attention=source)(*features()).attention for source in ("learned", "untrained")]
    assert torch.equal(*pair)


def test_uniform_and_random_weights():
    low, high = build().attention_bounds()
    uniform = build(attention="uniform")(*features()).attention
    torch.testing.assert_close(uniform, torch.full((2, 4, 2, 3), 1 / 3, dtype=torch.float64))
    module = build(attention="random")
    first, second = (module(*features(seed=s)).attention for s in (0, 1))
    assert torch.equal(first, second), "drawn once"
    assert torch.equal(first, first[:1, :1].expand_as(first)), "the same for every step and instance"
    assert ((first >= low) & (first <= high)).all()
    assert first[0, 0].unique().numel() == 6
    assert not torch.equal(first, build(seed=1, attention="random")(*features()).attention)


def test_cka_weights_by_hand():
    """Two instances of one feature: centred Gram matrices are c·[[1, -1], [-1, 1]], so every CKA is 1 or 0."""
    student = [torch.tensor([0.0, 1.0]).view(1, 2, 1, 1, 1).double()]
    teacher = [torch.tensor([5.0, 3.0]).view(2, 1, 1, 1).double(), torch.ones(2, 1, 1, 1).double()]
    weights = build([(1, 1, 1)], [(1, 1, 1)] * 2, 2, attention="cka")(student, teacher).attention
    low, high = math.exp(-1) / (math.e + math.exp(-1)), math.e / (math.e + math.exp(-1))
    np.testing.assert_allclose(weights[0, 0, 0], [high, low], rtol=1e-6)


def test_standardised_targets_have_one_size():
    student, teacher = features()
    larger = [7 * f + 3 for f in teacher]
    plain, scaled = (without_projection([(2, 4, 4)], [(2, 4, 4)]) for _ in range(2))
    scaled.distances.target_norm = "layer"
    assert not torch.allclose(plain(student[:1], teacher[:1]).distances, plain(student[:1], larger[:1]).distances)
    one, other = (scaled(student[:1], t[:1]).distances for t in (teacher, larger))
    torch.testing.assert_close(one, other)
    target = (teacher[0] - teacher[0].mean()) / teacher[0].std()
    torch.testing.assert_close(one[..., 0, 0], (student[0] - target).square().mean((-3, -2, -1)))


# Silence, precision, partial batches


@pytest.mark.parametrize("options", [{}, {"sim_norm": "row_l2"}, {"sim_order": "sorted"}])
def test_silent_student_stays_finite(options):
    module = build(**options)
    student, teacher = features()
    student = [torch.zeros_like(f).requires_grad_() for f in student]
    ours = module(student, teacher)
    (ours.attention * ours.distances).sum().backward()
    assert all(torch.isfinite(field).all() for field in ours)
    assert all(torch.isfinite(f.grad).all() for f in student)


def test_silent_instance_does_not_blow_up_the_gradient():
    """A row of zeros has no direction; its normalisation must not amplify the gradient without bound."""
    module = build(sim_norm="row_l2")
    student, teacher = features()
    for f in student:
        f[:, 1] = 0
        f.requires_grad_()
    ours = module(student, teacher)
    (ours.attention * ours.distances).sum().backward()
    assert max(f.grad.abs().max().item() for f in student) < 1e4


def test_partial_batch_is_padded_with_zero_columns():
    module = build()
    student, teacher = features(batch=3)
    narrow = build(batch_size=3)
    for wide_mlp, mlp in zip((*module.query, *module.key), (*narrow.query, *narrow.key), strict=True):
        with torch.no_grad():
            mlp[0].weight.copy_(wide_mlp[0].weight[:, :3])
            mlp[0].bias.copy_(wide_mlp[0].bias)
        mlp[2].load_state_dict(wide_mlp[2].state_dict())
    torch.testing.assert_close(module(student, teacher).attention, narrow(student, teacher).attention)


def test_mixed_precision():
    """Under autocast: attention and distances leave in float32 and close to the full-precision values."""
    module = build().float()
    student, teacher = ([f.float() for f in side] for side in features())
    exact = module(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = module([f.bfloat16() for f in student], [f.bfloat16() for f in teacher])
    assert {field.dtype for field in mixed} == {torch.float32}
    torch.testing.assert_close(mixed.attention, exact.attention, rtol=0.05, atol=0.02)
    torch.testing.assert_close(mixed.distances, exact.distances, rtol=0.1, atol=0.05)


def test_attention_under_autocast_sums_to_one_to_float32():
    module = build().float()
    student, teacher = ([f.float() for f in side] for side in features())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attention = module(student, teacher).attention
    torch.testing.assert_close(attention, module(student, teacher).attention, rtol=1e-5, atol=1e-6)


# Bad input


def test_larger_batch_names_both_numbers():
    with pytest.raises(ValueError, match=r"5.*batch_size=4"):
        build()(*features(batch=5))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mlp_sharing": "all"}, ("mlp_sharing", "all", "per_layer", "shared")),
        ({"sim_norm": "l2"}, ("sim_norm", "l2", "none", "row_l2")),
        ({"sim_order": "up"}, ("sim_order", "up", "batch", "sorted")),
        ({"resize_student": "min"}, ("resize_student", "min", "max", "avg")),
        ({"small_student": "pad"}, ("small_student", "pad", "pool_target", "upsample_student")),
        ({"projector_bn": "yes"}, ("projector_bn", "yes", "per_step", "folded", "none")),
        ({"hidden": 0}, ("hidden", "0")),
        ({"embedding": -1}, ("embedding", "-1")),
        ({"batch_size": 0}, ("batch_size", "0")),
        ({"batch_size": 64.0}, ("batch_size", "64.0", "integer")),
        ({"batch_size": "64"}, ("batch_size", "'64'", "integer")),
        ({"batch_size": True}, ("batch_size", "True", "integer")),
        ({"qk_norm": "no"}, ("qk_norm", "'no'", "True or False")),
        ({"detach_sim": 1}, ("detach_sim", "1", "True or False")),
        ({"score_scale": "2"}, ("score_scale", "'2'", "finite number")),
        ({"score_scale": math.nan}, ("score_scale", "nan", "finite number")),
        ({"students": []}, ("student_shapes", "[]")),
        ({"students": (3, 8, 8)}, ("student_shapes", "[3, 8, 8]", "for each layer")),
        ({"students": [(0, 8, 8)]}, ("student_shapes", "(0, 8, 8)")),
        ({"students": [(32,)]}, ("student_shapes", "(32,)", "(F, 1, 1)")),
        ({"teachers": [(3, 4)]}, ("teacher_shapes", "(3, 4)")),
    ],
)
def test_errors_name_field_value_and_choices(options, words):
    with pytest.raises(ValueError, match=words[0]) as error:
        build(**options)
    assert all(word in str(error.value) for word in words)


def test_wrong_features_are_named():
    student, teacher = features()
    module = build()
    with pytest.raises(ValueError, match="student_features"):
        module(student[:1], teacher)
    with pytest.raises(ValueError, match="teacher_features"):
        module(student, teacher[::-1])
    with pytest.raises(ValueError, match=r"\[3, 4\]"):
        module(student, [f[:3] for f in teacher])
    with pytest.raises(ValueError, match="step"):
        module([student[0], student[1][:1]], teacher)


def test_shapes_may_come_from_generators():
    module = build((shape for shape in STUDENTS), (torch.Size(shape) for shape in TEACHERS))
    assert module(*features()).attention.shape == (STEPS, BATCH, len(STUDENTS), len(TEACHERS))


def test_distances_check_their_maps_and_pairs():
    layers = LayerDistances(STUDENTS, TEACHERS, "all").double()
    assert layers.pairs == [(s, a) for s in range(2) for a in range(3)]
    student, teacher = features()
    assert layers(student, teacher).shape == (STEPS, BATCH, 6)
    with pytest.raises(ValueError, match=r"student_features: \(C, H, W\) of the layers are \[\(3, 2, 2\), "):
        layers(student[::-1], teacher)
    with pytest.raises(ValueError, match="teacher_features"):
        layers(student, teacher[:2])
    for pairs in ([(2, 0)], [(-1, -1)]):
        with pytest.raises(ValueError, match="pairs="):
            LayerDistances(STUDENTS, TEACHERS, pairs)


def test_maps_without_a_dimension_are_named_before_anything_is_computed():
    module, (student, teacher) = build(), features()
    with pytest.raises(ValueError, match=r"student_features: shapes \[\(4, 2, 4, 4\), .*must be \(T, B, C, H, W\)"):
        module([f[0] for f in student], teacher)
    with pytest.raises(ValueError, match=r"teacher_features: shapes \[\(2, 4, 4\), "):
        module(student, [f[0] for f in teacher])
    with pytest.raises(ValueError, match=r"teacher_features: shapes .*must be all \(B, C, H, W\) or all \(T, B"):
        module(student, [teacher[0].expand(STEPS, -1, -1, -1, -1), *teacher[1:]])


def test_vectors_and_tokens_as_maps():
    """What the message proposes: the dot products and mean squares are those of the vectors and tokens."""
    vector, tokens = torch.rand(STEPS, BATCH, 5), torch.rand(STEPS, BATCH, 6, 4)  # 2 x 3 tokens of 4 features
    maps = vector[..., None, None], tokens.mT.unflatten(-1, (2, 3))
    torch.testing.assert_close(similarity(maps[0]), vector @ vector.mT)
    flat = tokens.flatten(2)
    torch.testing.assert_close(similarity(maps[1]), flat @ flat.mT)
    assert torch.equal(maps[1][:, :, :, 1, 2], tokens[:, :, 5])
    module = SelfAttentiveCalibration([(5, 1, 1), (4, 2, 3)], [(5, 1, 1)], BATCH)
    assert module(maps, [vector[0, ..., None, None]]).attention.shape == (STEPS, BATCH, 2, 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_calibration_is_not_cast(dtype):
    student, teacher = ([f.to(dtype) for f in side] for side in features())
    with pytest.raises(ValueError, match=rf"weights={dtype}: must be torch.float32.*autocast"):
        build().to(dtype)(student, teacher)


@pytest.mark.parametrize("size", [(4, 4), (8, 2), (1, 1), (3, 5)])  # the last has windows that overlap
def test_max_pooling_is_adaptive_to_the_last_bit(size):
    """Spikes are full of ties, where the gradient goes to one of the equals."""
    spikes = (torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.6).float()
    leaves = [spikes.clone().requires_grad_() for _ in range(2)]
    pooled = _max_pool(leaves[0], size), F.adaptive_max_pool2d(leaves[1], size)
    assert torch.equal(*pooled)
    for each in pooled:
        (each * torch.arange(each.numel()).view_as(each)).sum().backward()
    assert torch.equal(leaves[0].grad, leaves[1].grad)


@pytest.mark.parametrize("batch", [1, 2, 4, 7, 8])
def test_attention_of_a_small_batch_learns(batch):
    """Queries and keys of one number would be 1 or -1, without a gradient."""
    torch.manual_seed(0)
    module = SelfAttentiveCalibration(STUDENTS, TEACHERS, batch)
    student, teacher = ([f.float() for f in side] for side in features(batch=batch))
    sastc_loss(*module(student, teacher)[:2]).backward()
    size = sum(p.grad.abs().sum() for p in (*module.query.parameters(), *module.key.parameters()))
    assert size > 1e-3
    with pytest.raises(ValueError, match="embedding=1: must be at least 2 with qk_norm=True"):
        SelfAttentiveCalibration(STUDENTS, TEACHERS, batch, embedding=1)


def test_features_may_come_once_and_in_any_type():
    module, (student, teacher) = build().float(), features()
    expected = module([f.float() for f in student], [f.float() for f in teacher])
    spikes = [(f > f.mean()) for f in student]
    again = module((f.float() for f in student), dict(enumerate(f.float() for f in teacher)).values())
    torch.testing.assert_close(again.attention, expected.attention)
    for dtype in (torch.bool, torch.int64, torch.float64, torch.float16):
        found, same = (module([f.to(t) for f in spikes], [f.float() for f in teacher]) for t in (dtype, torch.float32))
        torch.testing.assert_close(found.distances, same.distances)


def test_one_instance_of_one_pixel_is_an_error_that_names_the_way_out():
    shapes = [(4, 1, 1)], [(3, 1, 1)]
    maps = [torch.rand(2, 1, 4, 1, 1)], [torch.rand(1, 3, 1, 1)]
    with pytest.raises(
        ValueError, match=r"projector_bn='per_step': one instance with a map of one pixel has no variance"
    ):
        SelfAttentiveCalibration(*shapes, 8)(*maps)
    for bn in ("folded", "none"):
        assert SelfAttentiveCalibration(*shapes, 8, projector_bn=bn)(*maps).distances.isfinite().all()
    assert SelfAttentiveCalibration(*shapes, 8).eval()(*maps).distances.isfinite().all()


def test_weights_from_cka_have_the_features_type():
    module, (student, teacher) = build(attention="cka").float(), features()
    assert module([f.float() for f in student], [f.float() for f in teacher]).attention.dtype == torch.float32
    with pytest.raises(ValueError, match="pairs="):
        LayerDistances(STUDENTS, TEACHERS, [(0.7, 0)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_norm_and_relu_in_one_node_have_torchs_bits(dtype, layout, steps):
    from sastc.calibration import _norm_relu

    def run(norm, one_node):
        h = torch.randn(3 * steps, 4, 5, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
        h = h.contiguous(memory_format=layout).requires_grad_()
        out = _norm_relu(norm, h, steps) if one_node else F.relu(torch.cat([norm(part) for part in h.chunk(steps)]))
        out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype))
        return [out, h.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()]

    norms = [nn.BatchNorm2d(4) for _ in range(2)]
    for norm in norms:
        norm.load_state_dict({**norm.state_dict(), "weight": torch.tensor([1.0, -2.0, 0.0, 0.3])})
    found, expected = (run(norm, one_node) for norm, one_node in zip(norms, (True, False), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_gradient_of_a_distance_has_autograds_bits():
    from sastc.calibration import _MeanSquare

    x = torch.randn(2, 3, 4, 5, 7, generator=torch.Generator().manual_seed(0))
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    grad = torch.rand(2, 3, generator=torch.Generator().manual_seed(1))
    outs = [_MeanSquare.apply(leaves[0]), leaves[1].square().mean((-3, -2, -1))]
    for out in outs:
        out.backward(grad)
    assert torch.equal(*outs)
    assert torch.equal(leaves[0].grad, leaves[1].grad)
