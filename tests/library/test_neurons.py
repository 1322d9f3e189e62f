"""LIF neurons (Eq. 9-11) against hand-computed traces, plain loops and a backward pass derived by hand."""

import itertools
import math
import re

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sastc.neurons import LIF, SURROGATES, lif_step

NAMES = ("triangle", "rectangle", "sigmoid", "atan")
RESETS = ("hard", "soft")


def currents(*shape, seed=0, dtype=torch.float64):
    """Input that makes about a third of the neurons fire, with potentials on both sides of the threshold."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).add(0.6).to(dtype)


def step_loop(neuron, x, u0=None):
    """``neuron`` unrolled into single steps, whose gradient is autograd's own."""
    v = torch.zeros_like(x[0]) if u0 is None else u0
    spikes = []
    for current in x:
        o, v, _ = lif_step(
            current,
            v,
            decay=neuron.decay,
            threshold=neuron.threshold,
            gamma=neuron.gamma,
            surrogate=neuron.surrogate,
            reset=neuron.reset,
            detach_reset=neuron.detach_reset,
        )
        spikes.append(o)
    return torch.stack(spikes)


def trace(x, u0=None, **options):
    column = torch.tensor(x, dtype=torch.float64)[:, None]
    return LIF(**options)(column, None if u0 is None else torch.tensor([u0], dtype=torch.float64))[:, 0].tolist()


# Hand-computed traces


def test_constant_input_fires_every_third_step():
    # u = 0.6; 0.3 + 0.6 = 0.9; 0.45 + 0.6 = 1.05 > 1 fires, back to 0; then the same again
    assert trace([0.6] * 7) == [0, 0, 1, 0, 0, 1, 0]


def test_soft_reset_keeps_the_excess():
    # u = 0.8; 0.4 + 0.8 = 1.2 fires, keeps 0.2; 0.1 + 0.8 = 0.9; 0.45 + 0.8 = 1.25 fires, keeps 0.25;
    # 0.125 + 0.8 = 0.925; 0.4625 + 0.8 = 1.2625 fires
    assert trace([0.8] * 6, reset="soft") == [0, 1, 0, 1, 0, 1]
    # 2.5 fires, keeps 1.5; 0.75 + 0.5 = 1.25 fires, keeps 0.25; 0.125. A hard reset gives 2.5, 0.5, 0.25
    assert trace([2.5, 0.5, 0.0], reset="soft") == [1, 1, 0]
    assert trace([2.5, 0.5, 0.0]) == [1, 0, 0]


def test_negative_potential_is_kept():
    # u = -1; -0.5 + 1.25 = 0.75; 0.375 + 0.75 = 1.125 fires
    assert trace([-1.0, 1.25, 0.75]) == [0, 0, 1]


def test_equality_with_the_threshold_does_not_fire():
    # u = 1 stays silent; 0.5 + 0.5 = 1 stays silent; 0.5 + 0.75 = 1.25 fires
    assert trace([1.0, 0.5, 0.75]) == [0, 0, 1]
    assert trace([np.nextafter(1.0, 2)]) == [1]


def test_initial_potential_leaks_before_the_first_input():
    # 0.5 * 1 + 0.5 = 1 silent; 0.5 + 0.625 = 1.125 fires
    assert trace([0.5, 0.625], u0=1.0) == [0, 1]
    assert trace([0.5, 0.625]) == [0, 0]
    # an initial potential is one after a reset: 3 leaks to 1.5 and fires once
    assert trace([0.0, 0.0], u0=3.0) == [1, 0]


def test_decay_and_threshold():
    # decay 0.25, threshold 2: u = 1.5; 0.375 + 1.5 = 1.875; 0.46875 + 1.75 = 2.21875 fires; 1.5
    assert trace([1.5, 1.5, 1.75, 1.5], decay=0.25, threshold=2.0) == [0, 0, 1, 0]
    # without a leak: 0.5, 1, 1.5 fires
    assert trace([0.5, 0.5, 0.5, 0.5], decay=1.0) == [0, 0, 1, 0]


def test_initial_potential_may_be_a_number():
    x = torch.tensor([[0.0], [0.5]], dtype=torch.float64)
    full = torch.full((1,), 1.7, dtype=torch.float64)
    for u0 in (1.7, np.float64(1.7), np.array(1.7)):
        torch.testing.assert_close(LIF().membrane(x, u0), LIF().membrane(x, full))
    assert LIF()(x, 3).flatten().tolist() == LIF()(x, 3 * torch.ones(1)).flatten().tolist() == [1, 0]


def test_initial_potential_of_another_shape_is_an_error():
    x = torch.ones(2, 3, 4)
    for call in (LIF(), LIF().membrane):
        for shape in ((), (4,), (1, 4), (3, 1), (3, 4)):
            assert call(x, torch.zeros(shape)).shape == x.shape
        for shape in ((3,), (2, 3, 4), (1, 3, 4), (2, 4)):
            with pytest.raises(ValueError, match=rf"u0 has shape {re.escape(str(shape))}: must be, .* \(3, 4\)"):
                call(x, torch.zeros(shape))


def test_a_nan_is_no_spike():
    assert LIF()(torch.full((2, 1), math.nan)).tolist() == [[0], [0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": "0.5"}, r"decay='0.5': must be a finite number > 0 and <= 1"),
        ({"threshold": "1"}, "threshold='1': must be a finite number > 0"),
        ({"gamma": torch.tensor(0.3)}, "gamma=tensor.*: must be a finite number > 0"),
        ({"detach_reset": "yes"}, "detach_reset='yes': must be True or False"),
    ],
)
def test_types_of_parameters(options, message):
    with pytest.raises(ValueError, match=message):
        LIF(**options)


def test_membrane_is_the_potential_before_the_reset():
    x = torch.tensor([0.75, 0.75, 0.5], dtype=torch.float64)[:, None]
    # 0.75; 0.375 + 0.75 = 1.125 fires and resets; 0.5 (hard) or 0.0625 + 0.5 (soft)
    assert LIF().membrane(x)[:, 0].tolist() == [0.75, 1.125, 0.5]
    assert LIF(reset="soft").membrane(x)[:, 0].tolist() == [0.75, 1.125, 0.5625]
    assert LIF().membrane(x, torch.tensor([0.5], dtype=torch.float64))[0, 0].item() == 1.0


def test_step_returns_spike_reset_and_unreset_potential():
    x, v = torch.tensor([0.75, 0.25]), torch.tensor([0.5, 0.5])
    for reset, after in (("hard", [0.0, 0.5]), ("soft", [0.25, 0.5])):
        spike, v_next, u = lif_step(torch.tensor([1.0, 0.25]), v, reset=reset)
        assert (spike.tolist(), v_next.tolist(), u.tolist()) == ([1, 0], after, [1.25, 0.5])
    assert lif_step(x, v)[0].tolist() == [0, 0]  # 1.0 is not above 1


# Hand-computed gradients: T = 2, triangle of width 0.5 and height 2 (all numbers exact in binary)


@pytest.mark.parametrize(
    ("options", "first"),
    [
        # u1 = 0.875 silent, slope (0.5 - 0.125) / 0.25 = 1.5; u2 = 0.4375 + 0.6875 = 1.125 fires, slope 1.5.
        # dL/du2 = 1.5, dL/dv1 = 0.75. Hard: dL/do1 = 1 - 0.75 * 0.875, dL/du1 = 0.34375 * 1.5 + 0.75
        ({"reset": "hard"}, 1.265625),
        # soft: dL/do1 = 1 - 0.75 * 1, dL/du1 = 0.25 * 1.5 + 0.75
        ({"reset": "soft"}, 1.125),
        # detached: dL/do1 = 1, dL/du1 = 1.5 + 0.75
        ({"reset": "hard", "detach_reset": True}, 2.25),
        ({"reset": "soft", "detach_reset": True}, 2.25),
    ],
)
def test_gradient_of_two_steps(options, first):
    x = torch.tensor([[0.875], [0.6875]], dtype=torch.float64, requires_grad=True)
    u0 = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    spikes = LIF(gamma=0.5, **options)(x, u0)
    assert spikes.flatten().tolist() == [0, 1]
    spikes.sum().backward()
    assert x.grad.flatten().tolist() == [first, 1.5]
    assert u0.grad.tolist() == [first / 2]


def test_hard_reset_stops_the_gradient_of_a_neuron_far_above_threshold():
    x = torch.tensor([[5.0], [0.875]], dtype=torch.float64, requires_grad=True)
    LIF()(x)[1].sum().backward()
    # u1 = 5 lies outside the triangle, so only the second input matters: (0.3 - 0.125) / 0.09
    np.testing.assert_allclose(x.grad.flatten(), [0.0, 0.175 / 0.09], rtol=1e-12)


# Surrogates


def test_triangle_height_and_width():
    d = torch.tensor([0.0, 0.15, -0.15, 0.3, -0.3, 1.0], dtype=torch.float64)
    # 0.3 / 0.09 at the threshold, half of it at half the width, nothing from 0.3 on
    np.testing.assert_allclose(SURROGATES["triangle"](d, 0.3), [10 / 3, 5 / 3, 5 / 3, 0, 0, 0], atol=1e-15)
    assert SURROGATES["triangle"](d, 1.0)[0] == 1  # the released code's width


def test_heights_at_the_threshold():
    zero = torch.zeros(1, dtype=torch.float64)
    heights = {name: SURROGATES[name](zero, 0.5).item() for name in NAMES}
    assert heights == pytest.approx({"triangle": 2, "rectangle": 2, "sigmoid": 0.5, "atan": 2})
    assert set(SURROGATES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gamma", [0.3, 1.0])
def test_surrogate_is_the_slope_of_a_step_from_zero_to_one(name, gamma):
    d = np.linspace(-1.93, 1.917, 98)  # avoids the corners of rectangle and triangle
    slope = [reference.numerical_gradient(lambda x: reference.soft_step(name, float(x), gamma), v) for v in d]
    ours = SURROGATES[name](torch.from_numpy(d), gamma).numpy()
    np.testing.assert_allclose(ours, slope, atol=1e-8)
    np.testing.assert_allclose(ours, [reference.surrogate(name, v, gamma) for v in d], rtol=1e-11)
    assert reference.soft_step(name, -1e9, gamma) == pytest.approx(0, abs=1e-8)
    assert reference.soft_step(name, 1e9, gamma) == pytest.approx(1, abs=1e-8)


def test_rectangle_is_open():
    d = torch.tensor([-0.25, 0.25, 0.2499], dtype=torch.float64)
    assert SURROGATES["rectangle"](d, 0.5).tolist() == [0, 0, 2]


# The reference itself: its backward recursion is the derivative of its own forward pass with a smooth spike


@pytest.mark.parametrize("name", ["triangle", "sigmoid", "atan"])
@pytest.mark.parametrize(("reset", "detach"), list(itertools.product(RESETS, (False, True))))
def test_reference_backward_against_differences(name, reset, detach):
    rng = np.random.default_rng(1)
    x, weights, u0 = rng.normal(0.6, 0.6, 5), rng.normal(size=5), 0.3
    kinds = {"reset": reset, "decay": 0.7, "threshold": 0.9}

    def fire(d):
        return reference.soft_step(name, d, 0.4)

    spikes, potentials = reference.lif(x, u0, fire=fire, **kinds)
    frozen = spikes if detach else None

    def loss(x, u0):
        return weights @ reference.lif(x, u0, fire=fire, reset_spikes=frozen, **kinds)[0]

    grad_x, grad_u0 = reference.lif_backward(
        weights,
        spikes,
        potentials,
        lambda d: reference.surrogate(name, d, 0.4),
        detach_reset=detach,
        **kinds,
    )
    np.testing.assert_allclose(grad_x, reference.numerical_gradient(lambda x: loss(x, u0), x), atol=1e-8)
    np.testing.assert_allclose(grad_u0, reference.numerical_gradient(lambda u: loss(x, float(u)), u0), atol=1e-8)


# Library against reference

EVERY = list(itertools.product(NAMES, RESETS, (False, True)))


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize(("name", "reset", "detach"), EVERY)
def test_forward_and_gradient_against_loops(name, reset, detach, steps):
    rng = np.random.default_rng(steps)
    for decay, threshold, gamma in ((0.5, 1.0, 0.3), (0.7, 0.9, 1.0)):
        x = currents(steps, 3, 4, seed=steps).requires_grad_()
        u0 = currents(3, 4, seed=99).requires_grad_()
        weights = rng.normal(size=x.shape)
        neuron = LIF(decay, threshold, gamma, surrogate=name, reset=reset, detach_reset=detach)
        spikes = neuron(x, u0)
        shared = {"decay": decay, "threshold": threshold, "reset": reset}
        start, current = u0.detach().numpy(), x.detach().numpy()
        expected, potentials = reference.lif_layer(current, start, **shared)
        np.testing.assert_array_equal(spikes.detach().numpy(), expected)
        np.testing.assert_allclose(neuron.membrane(x, u0).detach(), potentials, rtol=1e-12, atol=1e-12)

        grads = torch.autograd.grad(spikes, (x, u0), torch.from_numpy(weights))
        by_hand = reference.lif_layer_backward(
            weights, current, start, name=name, gamma=gamma, detach_reset=detach, **shared
        )
        for ours, theirs in zip(grads, by_hand, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("name", "reset", "detach"), EVERY)
@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_fused_equals_step_loop(name, reset, detach, decay):
    neuron = LIF(decay, 0.8, 0.5, surrogate=name, reset=reset, detach_reset=detach)
    x, u0 = currents(5, 8, 9, seed=3).requires_grad_(), currents(8, 9, seed=4).requires_grad_()
    weights = currents(5, 8, 9, seed=5)
    fused, steps = neuron(x, u0), step_loop(neuron, x, u0)
    assert torch.equal(fused, steps)
    for ours, theirs in zip(*(torch.autograd.grad(o, (x, u0), weights) for o in (fused, steps)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("decay", [0.5, 0.1, 0.9])
def test_fused_and_membrane_agree_to_the_last_bit_at_the_threshold(decay):
    # second inputs such that u2 lies within rounding of the threshold: 1 + [-1, 2) * 2**-24
    generator = torch.Generator().manual_seed(0)
    first, noise = torch.rand(2, 100_003, generator=generator)
    x = torch.stack([first, (1 - decay * first) + (3 * noise - 1) * 2**-24])[:, None]
    neuron = LIF(decay)
    assert torch.equal(neuron(x), (neuron.membrane(x) > 1).to(x.dtype))
    assert torch.equal(neuron(x), step_loop(neuron, x))


def test_membrane_gradient_is_autograd_through_the_reset():
    x = currents(4, 6, seed=8).requires_grad_()
    weights = currents(4, 6, seed=9)
    neuron = LIF(surrogate="sigmoid")
    (grad,) = torch.autograd.grad(neuron.membrane(x), x, weights)
    # u^t is the input of the spike: replace dL/do^t by 0 and add dL/du^t where it arises
    for n in range(6):
        _, u = reference.lif(x[:, n].detach().numpy())
        g, expected = 0.0, np.zeros(4)
        for t in reversed(range(4)):
            slope = reference.surrogate("sigmoid", u[t] - 1, 0.3)
            expected[t] = weights[t, n] + g * (float(u[t] <= 1) - u[t] * slope)
            g = 0.5 * expected[t]
        np.testing.assert_allclose(grad[:, n], expected, rtol=1e-11)


def test_unused_initial_potential_and_missing_one_agree():
    x = currents(3, 5, seed=6).requires_grad_()
    (without,) = torch.autograd.grad(LIF()(x).sum(), x)
    (with_zeros,) = torch.autograd.grad(LIF()(x, torch.zeros(5, dtype=torch.float64)).sum(), x)
    assert torch.equal(without, with_zeros)


# Precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_spikes_and_gradients_keep_the_dtype(dtype):
    x = currents(3, 4, dtype=dtype).requires_grad_()
    u0 = torch.zeros(4, dtype=dtype, requires_grad=True)
    spikes = LIF()(x, u0)
    spikes.sum().backward()
    assert spikes.dtype == x.grad.dtype == u0.grad.dtype == dtype
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}


def test_bf16_input_accumulates_in_float32():
    # 255/256 / 2 + 129/256 = 1.001953125 fires; to bfloat16 that sum is 1 and would stay silent
    x = torch.tensor([[255 / 256], [129 / 256]], dtype=torch.bfloat16)
    assert (x[0] / 2 + x[1]).item() == 1.0
    assert LIF()(x).flatten().tolist() == [0, 1]
    assert LIF().membrane(x).dtype == torch.float32
    assert LIF().membrane(x)[1].item() == 1.001953125


def test_bf16_gradient_is_the_rounded_float32_gradient():
    x16 = currents(7, 200, seed=2, dtype=torch.bfloat16)
    grads = []
    for x in (x16, x16.float()):
        x = x.clone().requires_grad_()
        LIF(surrogate="sigmoid", gamma=0.7)(x).sum().backward()
        grads.append(x.grad)
    assert torch.equal(grads[0], grads[1].bfloat16())


def test_autocast_leaves_the_neuron_alone():
    x = currents(4, 50, seed=2, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(LIF()(x), LIF()(x.double()).float())


# Memory layout and what is kept for the backward pass


def saved_for_backward(function):
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda t: t):
        output = function()
    return saved, output


def test_only_the_input_is_saved():
    x = currents(7, 4, 3, 5, 5, dtype=torch.float32).requires_grad_()
    saved, spikes = saved_for_backward(lambda: LIF()(x))
    assert [tensor.data_ptr() for tensor in saved] == [x.data_ptr()]
    assert spikes.grad_fn.next_functions[0][0].variable is x  # one node, whatever T


def test_channels_last_is_kept_and_not_copied():
    frames = currents(3 * 2, 4, 5, 6, dtype=torch.float32).to(memory_format=torch.channels_last)
    x = frames.unflatten(0, (3, 2)).detach().requires_grad_()
    saved, spikes = saved_for_backward(lambda: LIF()(x))
    assert saved[0].data_ptr() == x.data_ptr()
    assert saved[0].stride() == x.stride() == spikes.stride()
    assert spikes.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    (grad,) = torch.autograd.grad(spikes.sum(), x)
    assert grad.stride() == x.stride()
    y = x.detach().contiguous().requires_grad_()
    spikes_contiguous = LIF()(y)
    assert torch.equal(spikes, spikes_contiguous)
    assert torch.equal(grad, torch.autograd.grad(spikes_contiguous.sum(), y)[0])


def test_static_input_is_not_materialised():
    image = currents(2, 3, 4, 4, dtype=torch.float32).requires_grad_()
    saved, spikes = saved_for_backward(lambda: LIF()(image.expand(6, *image.shape)))
    assert [tensor.untyped_storage().nbytes() for tensor in saved] == [image.untyped_storage().nbytes()]
    assert spikes.stride()[0] != 0
    repeated = image.detach().repeat(6, 1, 1, 1, 1).requires_grad_()
    assert torch.equal(spikes, LIF()(repeated))
    weights = currents(*repeated.shape, seed=1, dtype=torch.float32)
    (grad,) = torch.autograd.grad(spikes, image, weights)
    (expected,) = torch.autograd.grad(LIF()(repeated), repeated, weights)
    torch.testing.assert_close(grad, expected.sum(0))


def test_broadcast_initial_potential():
    x = currents(3, 4, 5).requires_grad_()
    u0 = currents(1, 5, seed=1).requires_grad_()
    full = u0.detach().repeat(4, 1).requires_grad_()
    weights = currents(3, 4, 5, seed=2)
    grad_x, grad_u0 = torch.autograd.grad(LIF()(x, u0), (x, u0), weights)
    expected_x, expected_u0 = torch.autograd.grad(LIF()(x, full), (x, full), weights)
    assert torch.equal(grad_x, expected_x)
    torch.testing.assert_close(grad_u0, expected_u0.sum(0, keepdim=True))


def test_input_is_left_unchanged():
    x, u0 = currents(4, 3), currents(3)
    before = x.clone(), u0.clone()
    LIF()(x, u0)
    LIF(reset="soft").membrane(x, u0)
    assert torch.equal(x, before[0])
    assert torch.equal(u0, before[1])


def test_empty_batch():
    x = torch.zeros(3, 0, 4, requires_grad=True)
    spikes = LIF()(x)
    spikes.sum().backward()
    assert spikes.shape == x.grad.shape == LIF().membrane(x).shape == (3, 0, 4)


def test_nothing_is_remembered_between_calls():
    neuron, x = LIF(), currents(3, 4)
    assert torch.equal(neuron(x), neuron(x))
    assert not neuron.state_dict()


# Function transforms


@pytest.mark.parametrize("reset", RESETS)
def test_vmap_of_grad(reset):
    x, u0, weights = currents(5, 4, 3), currents(5, 3, seed=1), currents(4, 3, seed=2)
    neuron = LIF(reset=reset)

    def loss(x, u0):
        return (neuron(x, u0) * weights).sum()

    grads = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)))(x, u0)
    shared = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)), in_dims=(0, None))(x, u0[0])
    behind = torch.func.vmap(torch.func.grad(loss), in_dims=(2, 0), out_dims=2)(x.movedim(0, 2), u0)
    alone = torch.func.vmap(torch.func.grad(lambda x: (neuron(x) * weights).sum()))(x)
    for n in range(5):
        expected = torch.func.grad(loss, argnums=(0, 1))(x[n], u0[n])
        torch.testing.assert_close((grads[0][n], grads[1][n]), expected)
        torch.testing.assert_close(behind[..., n], expected[0])
        expected = torch.func.grad(loss, argnums=(0, 1))(x[n], u0[0])
        torch.testing.assert_close((shared[0][n], shared[1][n]), expected)
        expected = reference.lif_layer_backward(weights.numpy(), x[n].numpy(), name="triangle", gamma=0.3, reset=reset)
        torch.testing.assert_close(alone[n], torch.from_numpy(expected[0]))


def test_vmap_over_initial_potentials_only():
    x, u0 = currents(4, 3), currents(5, 3, seed=1)
    batched = torch.func.vmap(LIF(), in_dims=(None, 0))(x, u0)
    assert torch.equal(batched, torch.stack([LIF()(x, start) for start in u0]))


def test_second_derivative_is_refused_rather_than_wrong():
    x = currents(3, 4).requires_grad_()
    (grad,) = torch.autograd.grad(LIF()(x).sum(), x, create_graph=True)
    with pytest.raises((NotImplementedError, RuntimeError)):
        grad.sum().backward()


# Properties

few = settings(max_examples=25, deadline=None)
inputs = st.lists(st.integers(-24, 40), min_size=1, max_size=8).map(lambda values: [v / 16 for v in values])


@few
@given(inputs, inputs, st.sampled_from(RESETS))
def test_causality(past, future, reset):
    assert trace(past + future, reset=reset)[: len(past)] == trace(past, reset=reset)


@few
@given(inputs, st.sampled_from([0.25, 2.0, 8.0]), st.sampled_from(RESETS))
def test_potentials_are_measured_in_thresholds(x, factor, reset):
    scaled = [factor * value for value in x]  # powers of two: exact
    assert trace(x, reset=reset) == trace(scaled, threshold=factor, reset=reset)


@few
@given(inputs, inputs, st.sampled_from(RESETS))
def test_state_carries_over(first, second, reset):
    """Running on from the potential after the reset is the same as never having stopped."""
    v = torch.zeros(1, dtype=torch.float64)
    for current in first:
        _, v, _ = lif_step(torch.tensor([current], dtype=torch.float64), v, reset=reset)
    assert trace(first + second, reset=reset)[len(first) :] == trace(second, u0=v.item(), reset=reset)


@few
@given(inputs)
def test_below_threshold_input_stays_silent(x):
    # |I| <= V_th (1 - decay) can at most approach the threshold
    assert not any(trace([max(-0.5, min(0.5, value)) for value in x]))


# Bad input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"decay": 0.0}, ("decay", "0.0")),
        ({"decay": 1.5}, ("decay", "1.5")),
        ({"decay": float("nan")}, ("decay", "nan")),
        ({"threshold": 0.0}, ("threshold", "0.0")),
        ({"threshold": float("inf")}, ("threshold", "inf")),
        ({"gamma": -1.0}, ("gamma", "-1.0")),
        ({"surrogate": "square"}, ("surrogate", "square", "triangle", "atan")),
        ({"reset": "none"}, ("reset", "none", "hard", "soft")),
    ],
)
def test_errors_name_field_value_and_choices(options, words):
    with pytest.raises(ValueError, match=words[0]) as error:
        LIF(**options)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("x", [torch.zeros(3), torch.zeros(0, 2), torch.zeros(2, 2, dtype=torch.int64)])
def test_input_without_time_or_of_integers_is_refused(x):
    for call in (LIF(), LIF().membrane):
        with pytest.raises(ValueError, match=r"T, B"):
            call(x)
