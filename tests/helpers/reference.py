"""Slow references for Eq. 1-11, written from the equations with numpy float64 and plain loops.

Nothing here imports the library. A name ending in ``_backward`` is a derivative worked out by hand;
``numerical_gradient`` is the central difference against which smooth functions are checked.

Shapes: spikes and student features ``(T, B, C, H, W)``, teacher features ``(B, C, H, W)``, similarity
matrices ``(T, S, B, B)`` and ``(A, B, B)``, attention and distances ``(T, B, S, A)``.
"""

from __future__ import annotations

import math

import numpy as np


def numerical_gradient(function, x, entries=None, step=1e-6):
    """Central differences of the scalar ``function(x)`` at all (or the given) index tuples of ``x``."""
    x = np.array(x, dtype=np.float64)
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape) if entries is None else entries:
        middle = x[index]
        x[index] = middle + step
        above = function(x)
        x[index] = middle - step
        below = function(x)
        x[index] = middle
        gradient[index] = (above - below) / (2 * step)
    return gradient


# Neurons, Eq. 9-11


def surrogate(name, d, gamma):
    """Stand-in for the derivative of the Heaviside step at distance ``d`` from the threshold."""
    if name == "triangle":
        return max(0.0, gamma - abs(d)) / gamma**2  # Eq. 11
    if name == "rectangle":
        return 1 / gamma if abs(d) < gamma / 2 else 0.0
    if name == "sigmoid":
        return 1 / (4 * gamma * math.cosh(d / (2 * gamma)) ** 2)
    if name == "atan":
        return 1 / gamma / (1 + (math.pi * d / gamma) ** 2)
    raise KeyError(name)


def soft_step(name, d, gamma):
    """Smoothed step from 0 to 1 whose slope is the surrogate: what the backward pass pretends to have run."""
    if name == "triangle":  # the integral of a tent: two parabolas
        if abs(d) >= gamma:
            return float(d > 0)
        return (d + gamma) ** 2 / (2 * gamma**2) if d < 0 else 1 - (gamma - d) ** 2 / (2 * gamma**2)
    if name == "rectangle":
        return min(1.0, max(0.0, d / gamma + 0.5))
    if name == "sigmoid":
        return 0.5 + 0.5 * math.tanh(d / (2 * gamma))
    if name == "atan":
        return 0.5 + math.atan(math.pi * d / gamma) / math.pi
    raise KeyError(name)


def heaviside(d):
    return 1.0 if d > 0 else 0.0  # at equality the neuron stays silent


def lif(x, u0=0.0, decay=0.5, threshold=1.0, reset="hard", fire=heaviside, reset_spikes=None):
    """Eq. 9-10 for one neuron: ``x`` (T,) -> spikes (T,) and potentials before the reset (T,).

    ``fire`` may be a smooth step; ``reset_spikes`` (T,) are used in the reset instead of the spikes
    (with frozen ones a difference quotient sees the reset as a constant, i.e. detached).
    """
    spikes, potentials, v = [], [], u0
    for t, current in enumerate(x):
        u = decay * v + current
        o = fire(u - threshold)
        r = o if reset_spikes is None else reset_spikes[t]
        v = u * (1 - r) if reset == "hard" else u - threshold * r
        spikes.append(o)
        potentials.append(u)
    return np.array(spikes), np.array(potentials)


def lif_backward(grad, spikes, potentials, slope, decay=0.5, threshold=1.0, reset="hard", detach_reset=False):
    """Back-propagation through ``lif`` by hand: gradients of the input (T,) and of ``u0``.

    With g = dL/dv^t arriving from step t+1,
        dL/do = grad^t - g u^t (hard)  or  grad^t - g V_th (soft), without the second term when detached,
        dL/du = dL/do slope(u^t - V_th) + g (1 - o^t) (hard)  or  ... + g (soft),
        dL/dI^t = dL/du,  dL/dv^{t-1} = decay dL/du.
    """
    grad_x, g = np.zeros(len(grad)), 0.0
    for t in reversed(range(len(grad))):
        u, o = potentials[t], spikes[t]
        through_reset = 0.0 if detach_reset else g * (-u if reset == "hard" else -threshold)
        kept = g * (1 - o) if reset == "hard" else g
        grad_x[t] = (grad[t] + through_reset) * slope(u - threshold) + kept
        g = decay * grad_x[t]
    return grad_x, g


def lif_layer(x, u0=None, **options):
    """``lif`` for every neuron of ``x`` (T, ...)."""
    x = np.asarray(x, dtype=np.float64)
    u0 = np.zeros(x.shape[1:]) if u0 is None else np.broadcast_to(u0, x.shape[1:])
    spikes, potentials = np.zeros_like(x), np.zeros_like(x)
    for n in np.ndindex(x.shape[1:]):
        spikes[(slice(None), *n)], potentials[(slice(None), *n)] = lif(x[(slice(None), *n)], u0[n], **options)
    return spikes, potentials


def lif_layer_backward(grad, x, u0=None, *, name, gamma, detach_reset=False, **options):
    """``lif_backward`` for every neuron: gradients of ``x`` (T, ...) and ``u0`` (...)."""
    spikes, potentials = lif_layer(x, u0, **options)
    grad_x, grad_u0 = np.zeros_like(potentials), np.zeros(potentials.shape[1:])
    for n in np.ndindex(potentials.shape[1:]):
        column = (slice(None), *n)
        grad_x[column], grad_u0[n] = lif_backward(
            grad[column],
            spikes[column],
            potentials[column],
            lambda d: surrogate(name, d, gamma),
            detach_reset=detach_reset,
            **options,
        )
    return grad_x, grad_u0


# Similarity and attention, Eq. 3-5


def similarity(features):
    """Eq. 3 for one layer at one step: (B, C, H, W) -> (B, B) raw dot products."""
    batch = len(features)
    result = np.zeros((batch, batch))
    for i in range(batch):
        for j in range(batch):
            result[i, j] = sum(a * b for a, b in zip(features[i].ravel(), features[j].ravel(), strict=True))
    return result


def mlp_input(row, width, *, sim_norm="none", sim_order="batch"):
    """Row of a similarity matrix (B,) as the query or key network reads it, zero-padded to (width,)."""
    values = [float(value) for value in row]
    if sim_norm == "row_l2":
        length = math.sqrt(sum(value * value for value in values))
        values = [value / length if length > 0 else 0.0 for value in values]
    if sim_order == "sorted":
        values = sorted(values, reverse=True)
    return np.array(values + [0.0] * (width - len(values)))


def mlp(row, weights, *, qk_norm=True):
    """Eq. 4: linear, ReLU, linear (then unit length). ``weights`` is (W1, b1, W2, b2)."""
    w1, b1, w2, b2 = weights
    hidden = [max(0.0, sum(w * r for w, r in zip(ws, row, strict=True)) + b) for ws, b in zip(w1, b1, strict=True)]
    out = [sum(w * h for w, h in zip(ws, hidden, strict=True)) + b for ws, b in zip(w2, b2, strict=True)]
    if qk_norm:
        length = math.sqrt(sum(value * value for value in out))
        out = [value / max(length, 1e-12) for value in out]
    return np.array(out)


def attention(
    student_similarity,
    teacher_similarity,
    queries,
    keys,
    *,
    width,
    qk_norm=True,
    score_scale=1.0,
    **input_options,
):
    """Eq. 4-5: (T, S, B, B) and (A, B, B) -> weights (T, B, S, A). ``queries``/``keys``: MLP weights a layer."""
    steps, students, batch = student_similarity.shape[:3]
    teachers = len(teacher_similarity)
    weights = np.zeros((steps, batch, students, teachers))
    for t in range(steps):
        for i in range(batch):
            for s in range(students):
                row = mlp_input(student_similarity[t, s, i], width, **input_options)
                query = mlp(row, queries[s], qk_norm=qk_norm)
                scores = []
                for a in range(teachers):
                    row = mlp_input(teacher_similarity[a, i], width, **input_options)
                    key = mlp(row, keys[a], qk_norm=qk_norm)
                    scores.append(score_scale * sum(q * k for q, k in zip(query, key, strict=True)))
                largest = max(scores)
                total = sum(math.exp(score - largest) for score in scores)
                weights[t, i, s] = [math.exp(score - largest) / total for score in scores]
    return weights


# Projection and distance, Eq. 2 and the inner term of Eq. 6


def pool(features, size, reduce):
    """Adaptive pooling of (B, C, H, W) to ``size`` = (h, w); cell i covers floor(iH/h) ... ceil((i+1)H/h)."""
    batch, channels, height, width = features.shape
    result = np.zeros((batch, channels, *size))
    for y in range(size[0]):
        rows = slice(y * height // size[0], -(-(y + 1) * height // size[0]))
        for x in range(size[1]):
            columns = slice(x * width // size[1], -(-(x + 1) * width // size[1]))
            result[:, :, y, x] = reduce(features[:, :, rows, columns], axis=(2, 3))
    return result


def upsample(features, size):
    """Nearest neighbour: output pixel i shows input pixel floor(iH/h)."""
    batch, channels, height, width = features.shape
    result = np.zeros((batch, channels, *size))
    for y in range(size[0]):
        for x in range(size[1]):
            result[:, :, y, x] = features[:, :, y * height // size[0], x * width // size[1]]
    return result


def convolve(features, kernel):
    """Cross-correlation with zero padding that keeps the size: (B, C, H, W), (O, C, k, k) -> (B, O, H, W)."""
    batch, _, height, width = features.shape
    out, _, k, _ = kernel.shape
    padded = np.pad(features, ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    result = np.zeros((batch, out, height, width))
    for b in range(batch):
        for o in range(out):
            for y in range(height):
                for x in range(width):
                    result[b, o, y, x] = (padded[b, :, y : y + k, x : x + k] * kernel[o]).sum()
    return result


def batch_norm(features, scale, shift, eps=1e-5):
    """Training-mode normalisation of (B, C, H, W) with the statistics of this batch, biased variance."""
    result = np.zeros_like(features)
    for c in range(features.shape[1]):
        mean, variance = features[:, c].mean(), ((features[:, c] - features[:, c].mean()) ** 2).mean()
        result[:, c] = (features[:, c] - mean) / math.sqrt(variance + eps) * scale[c] + shift[c]
    return result


def project(features, weights, bn="per_step"):
    """Eq. 2 for one pair: (T, B, C_s, H, W) -> (T, B, C_a, H, W). ``weights``: (k3, bn scale, bn shift, k1)."""
    k3, scale, shift, k1 = weights
    steps = [convolve(step, k3) for step in features]
    if bn == "per_step":
        steps = [batch_norm(step, scale, shift) for step in steps]
    elif bn == "folded":  # one set of statistics for all steps together
        steps = np.split(batch_norm(np.concatenate(steps), scale, shift), len(steps))
    return np.stack([convolve(np.maximum(step, 0), k1) for step in steps])


def distance(student, target, projector, *, resize_student="max", small_student="pool_target", bn="per_step"):
    """Squared difference after projection, averaged over c, h, w of every instance: (T, B)."""
    steps, batch = student.shape[:2]
    size, wanted = student.shape[-2:], target.shape[-2:]
    if size[0] > wanted[0] or size[1] > wanted[1]:
        reduce = np.max if resize_student == "max" else np.mean
        student = np.stack([pool(step, wanted, reduce) for step in student])
    elif size != wanted:
        if small_student == "pool_target":
            target = pool(target, size, np.mean)
        else:
            student = np.stack([upsample(step, wanted) for step in student])
    projected = projector(student) if callable(projector) else project(student, projector, bn)
    result = np.zeros((steps, batch))
    for t in range(steps):
        for i in range(batch):
            difference = [p - a for p, a in zip(projected[t, i].ravel(), target[i].ravel(), strict=True)]
            result[t, i] = sum(d * d for d in difference) / len(difference)
    return result


def distances(student_features, teacher_features, projectors, **options):
    """Distances (T, B, S, A); ``projectors[s, a]`` holds the weights of one pair."""
    steps, batch = student_features[0].shape[:2]
    result = np.zeros((steps, batch, len(student_features), len(teacher_features)))
    for s, student in enumerate(student_features):
        for a, teacher in enumerate(teacher_features):
            result[:, :, s, a] = distance(student, teacher, projectors[s, a], **options)
    return result


# Losses, Eq. 6-8, and STM score, Eq. 1


def softmax(logits, temperature=1.0):
    scaled = [value / temperature for value in logits]
    exps = [math.exp(value - max(scaled)) for value in scaled]
    return np.array([value / sum(exps) for value in exps])


def kd_loss(student, teacher, labels, *, temperature=4.0, kl_weight=1.0, ce_weight=1.0):
    """Eq. 8 with the temperature inside the softmax; mean over the batch. Logits (B, N), labels (B,)."""
    total = 0.0
    for s, a, label in zip(student, teacher, labels, strict=True):
        cross_entropy = -math.log(softmax(s)[label])
        p, q = softmax(a, temperature), softmax(s, temperature)
        divergence = sum(pk * math.log(pk / qk) for pk, qk in zip(p, q, strict=True))
        total += ce_weight * cross_entropy + kl_weight * temperature**2 * divergence
    return total / len(student)


def kd_loss_backward(student, teacher, labels, *, temperature=4.0, kl_weight=1.0, ce_weight=1.0):
    """dL/dstudent by hand: softmax minus target, and temperature (q - p) for the divergence, over B."""
    grad = np.zeros(np.shape(student))
    for i, (s, a, label) in enumerate(zip(student, teacher, labels, strict=True)):
        one_hot = np.eye(len(s))[label]
        grad[i] = ce_weight * (softmax(s) - one_hot)
        grad[i] += kl_weight * temperature * (softmax(s, temperature) - softmax(a, temperature))
    return grad / len(student)


def sastc_loss(weights, dists, reduction="mean"):
    """Eq. 6; ``mean`` divides the printed sum by B, T and S (the weights already sum to one over A)."""
    steps, batch, students, teachers = weights.shape
    total = 0.0
    for i in range(batch):
        for t in range(steps):
            for a in range(teachers):
                for s in range(students):
                    total += weights[t, i, s, a] * dists[t, i, s, a]
    return total / (batch * steps * students) if reduction == "mean" else total


def feature_kd_loss(dists, pairs):
    """Mean distance over fixed layer pairs (s, a), steps and instances."""
    values = [d[s, a] for step in dists for d in step for s, a in pairs]
    return sum(values) / len(values)


def pair_mismatch(student_similarity, teacher_similarity, kind="mse"):
    """Distance between b x b matrices for every step and pair: (T, S, B, B), (A, B, B) -> (T, S, A)."""
    steps, students = student_similarity.shape[:2]
    result = np.zeros((steps, students, len(teacher_similarity)))
    for t, s, a in np.ndindex(result.shape):
        squares = [(p - q) ** 2 for p, q in zip(student_similarity[t, s].flat, teacher_similarity[a].flat, strict=True)]
        result[t, s, a] = sum(squares) / len(squares) if kind == "mse" else math.sqrt(sum(squares))
    return result


def stm_score(student_features, teacher_features, pairs=None, *, kind="mse", log_base="e"):
    """Eq. 1: the mean over steps and pairs (s, a), then its logarithm."""
    teachers = np.stack([similarity(f) for f in teacher_features])
    steps = range(len(student_features[0]))
    students = np.stack([[similarity(f[t]) for f in student_features] for t in steps])
    mismatch = pair_mismatch(students, teachers, kind)
    if pairs is None:
        pairs = list(np.ndindex(mismatch.shape[1:]))
    values = [mismatch[t, s, a] for t in steps for s, a in pairs]
    mean = sum(values) / len(values)
    return mean if log_base is None else math.log(mean, math.e if log_base == "e" else log_base)
