"""Slow references for the field's distillation methods: the formulas as loops over numbers, in double precision.

Nothing here imports the library or torch. Arrays come in as numpy; a batch is a loop over images, a mean a sum divided
by a count. Shapes: step logits z (T, B, N), teacher logits u (B, N), labels y (B,), student maps F (T, B, C, H, W),
teacher maps G (B, C', H', W').

Where a formula stops the gradient, `at` holds the student's logits from which that part is computed: a difference
quotient of the rest then sees it as a constant.
"""

from __future__ import annotations

import math

import numpy as np


def softmax(x, tau=1.0):
    top = max(x)
    powers = [math.exp((v - top) / tau) for v in x]
    return [p / sum(powers) for p in powers]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def soft(student, teacher, tau):
    """K_τ of one image."""
    return tau**2 * kl(softmax(teacher, tau), softmax(student, tau))


def ce(x, y, tau=1.0):
    return -math.log(softmax(x, tau)[y])


def argmax(x):
    return list(x).index(max(x))


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def images(z):
    """Per image: its T lists of logits."""
    return [[[float(v) for v in step[b]] for step in z] for b in range(len(z[0]))]


def over_time(steps):
    return [mean(column) for column in zip(*steps, strict=True)]


def tet(z, y, tau=1.0):
    return mean(mean(ce(x, y[b], tau) for x in steps) for b, steps in enumerate(images(z)))


def kd(z, u, y, tau=4.0, kl_weight=1.0, ce_weight=1.0):
    total = 0.0
    for b, steps in enumerate(images(z)):
        x = over_time(steps)
        total += ce_weight * ce(x, y[b]) + kl_weight * soft(x, u[b], tau)
    return total / len(y)


def tet_kd(z, u, y):
    return tet(z, y) + mean(soft(over_time(steps), u[b], 4.0) for b, steps in enumerate(images(z)))


def twd(z, u, y, alpha=0.2, beta=0.5, tau=3.0, target="correct", at=None):
    total = 0.0
    for b, (steps, fixed) in enumerate(zip(images(z), images(z if at is None else at), strict=True)):
        taken = [x for x in fixed if target == "mean" or argmax(x) == y[b]]
        e = over_time(taken) if taken else [0.0] * len(steps[0])
        total += mean(ce(x, y[b]) + alpha * soft(x, u[b], tau) + beta * soft(x, e, tau) for x in steps)
    return total / len(y)


def tser(z, u, y, alpha=0.5, gamma=0.1, tau=4.0, soft_labels=False):
    total = 0.0
    for b, steps in enumerate(images(z)):
        for x in steps:
            entropy = -sum(p * math.log(p) for p in softmax(x, tau))
            hard = ce(x, y[b], tau if soft_labels else 1.0)
            total += ((1 - alpha) * hard + alpha * soft(x, u[b], tau) - gamma * entropy) / len(steps)
    return total / len(y)


def seal_kd(z, u, y, alpha=0.6, beta=0.15, tau=3.0, at=None):
    total = 0.0
    for b, (steps, fixed) in enumerate(zip(images(z), images(z if at is None else at), strict=True)):
        right, n = int(y[b]), len(steps[0])
        confidence = [1 + sum(p * math.log(p) for p in softmax(x)) / math.log(n) for x in fixed]
        for t, x in enumerate(steps):
            s, v, wrong = list(x), [float(a) for a in u[b]], argmax(x)
            if wrong != right:
                s[wrong] = s[right]
                v[wrong] = v[right] = min(v[wrong], v[right])
            term = ce(x, right) + alpha * soft(s, v, tau)
            others = [j for j in range(len(steps)) if j != t]
            if others:
                scores = [confidence[j] * cosine(fixed[t], fixed[j]) for j in others]
                shares = softmax(scores)
                target = [sum(a * fixed[j][k] for a, j in zip(shares, others, strict=True)) for k in range(n)]
                term += beta * soft(x, target, tau)
            total += term / len(steps)
    return total / len(y)


def cosine(a, b):
    dot = sum(p * q for p, q in zip(a, b, strict=True))
    return dot / (math.sqrt(sum(p * p for p in a)) * math.sqrt(sum(q * q for q in b)))


def hta(student, teacher, tau, share=0.5, masked=False, fixed=None):
    """HTA of one image; `fixed` are the logits that the weight is computed from."""
    p, q = softmax(teacher, tau), softmax(student, tau)
    so_far, in_head = 0.0, [False] * len(p)
    for rank, k in enumerate(sorted(range(len(p)), key=lambda k: -p[k])):
        so_far += p[k]
        in_head[k] = rank == 0 or so_far <= share
    gaps = [abs(a - b) for a, b in zip(p, softmax(student if fixed is None else fixed, tau), strict=True)]
    w = sum(g for g, h in zip(gaps, in_head, strict=True) if h) / (sum(gaps) + 1e-8)
    forward = sum(a * math.log(a / b) for a, b, h in zip(p, q, in_head, strict=True) if h or not masked)
    reverse = sum(b * math.log(b / a) for a, b, h in zip(p, q, in_head, strict=True) if not (h and masked))
    return w * forward + (1 - w) * reverse


def hta_kl(z, u, y, weight=1.0, tau=4.0, share=0.5, masked=False, at=None):
    total = 0.0
    for b, (steps, fixed) in enumerate(zip(images(z), images(z if at is None else at), strict=True)):
        x = over_time(steps)
        total += ce(x, y[b]) + weight * tau**2 * hta(x, u[b], tau, share, masked, over_time(fixed))
    return total / len(y)


# Maps


def rate(f):
    """(T, B, C, H, W) to its mean over time."""
    return sum(np.asarray(step, dtype=np.float64) for step in f) / len(f)


def shrink(x, height, width):
    """A map (B, C, H, W) averaged in blocks; height and width divide its own."""
    x = np.asarray(x, dtype=np.float64)
    out = np.zeros((*x.shape[:2], height, width))
    rows, columns = x.shape[2] // height, x.shape[3] // width
    for i, j in np.ndindex(height, width):
        block = x[:, :, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
        out[:, :, i, j] = block.sum((2, 3)) / (rows * columns)
    return out


def same_size(a, b):
    size = min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3])
    return shrink(a, *size), shrink(b, *size)


def convolve(x, weight, bias):
    """A convolution with an odd square kernel, stride 1, that keeps the size."""
    batch, _, height, width = x.shape
    half = weight.shape[2] // 2
    out = np.zeros((batch, len(weight), height, width))
    for b, k, i, j in np.ndindex(out.shape):
        total = float(bias[k])
        for c, di, dj in np.ndindex(weight.shape[1:]):
            row, column = i + di - half, j + dj - half
            if 0 <= row < height and 0 <= column < width:
                total += weight[k, c, di, dj] * x[b, c, row, column]
        out[b, k, i, j] = total
    return out


def squared(f, g, r=None, pooled=True):
    """(1/B) ‖r(F̄) - G‖², of maps or of their means over pixels; `r` is weight and bias of a convolution."""
    a, b = rate(f), np.asarray(g, dtype=np.float64)
    if not pooled:
        a, b = same_size(a, b)
    if r is not None:
        a = convolve(a, *r)
    if pooled:
        a, b = shrink(a, 1, 1), shrink(b, 1, 1)
    return sum((a[index] - b[index]) ** 2 for index in np.ndindex(a.shape)) / len(a)


def attention(x):
    """Q of one image (C, H, W), as a list of H·W."""
    maps = [mean(x[c, i, j] ** 2 for c in range(len(x))) for i, j in np.ndindex(x.shape[1:])]
    length = math.sqrt(sum(v * v for v in maps))
    return [v / length if length else 0.0 for v in maps]


def attention_distance(f, g):
    a, b = same_size(rate(f), np.asarray(g, dtype=np.float64))
    pairs = [(attention(x), attention(t)) for x, t in zip(a, b, strict=True)]
    return mean(mean((p - q) ** 2 for p, q in zip(*pair, strict=True)) for pair in pairs)


def wsld(z, u, y, tau=2.0, at=None):
    total = 0.0
    for b, (steps, fixed) in enumerate(zip(images(z), images(z if at is None else at), strict=True)):
        x = over_time(steps)
        w = 1 - math.exp(-ce(over_time(fixed), y[b]) / (ce(u[b], y[b]) + 1e-7))
        q = softmax(x, tau)
        total += -w * sum(p * math.log(s) for p, s in zip(softmax(u[b], tau), q, strict=True))
    return tau**2 * total / len(y)


def blurred(f, g, align, first, second, kept):
    """L_BKD; `align`, `first`, `second` are weight and bias of convolutions, `align` may be None."""
    x = rate(f) if align is None else convolve(rate(f), *align)
    x = x * np.asarray(kept, dtype=np.float64)[:, :, None, None]
    x = convolve(np.maximum(convolve(x, *first), 0), *second)
    a, b = shrink(x, 1, 1), shrink(g, 1, 1)
    return sum((a[index] - b[index]) ** 2 for index in np.ndindex(a.shape)) / len(a)


def samd(f, g, weight, u, variant):
    f, g = np.asarray(f, dtype=np.float64), np.asarray(g, dtype=np.float64)
    batch, channels, height, width = g.shape
    seen, looked = np.zeros((batch, 1, *f.shape[3:])), np.zeros((batch, 1, height, width))
    for t, b, c, i, j in np.ndindex(f.shape):
        seen[b, 0, i, j] += f[t, b, c, i, j]
    for b, i, j in np.ndindex(batch, height, width):
        row = weight[argmax(u[b])]
        looked[b, 0, i, j] = max(0.0, sum(row[c] * g[b, c, i, j] for c in range(channels)))
    seen, looked = same_size(seen, looked)
    if variant == "released":
        seen, looked = scaled(seen), scaled(looked)
    total = 0.0
    for s, m in zip(seen, looked, strict=True):
        if variant == "per_image":
            s, m = scaled(s), scaled(m)
        total += kl(softmax(list(m.flatten()), 2.0), softmax(list(s.flatten()), 2.0))
    return (1 if variant == "released" else 4) * total / batch


def scaled(x):
    x = x - x.min()
    return x / (x.max() + 1e-3)


def nld(z, u, xi, variant, rho=0.1):
    total = 0.0
    for b, steps in enumerate(images(z)):
        x = over_time(steps)
        m = mean(x)
        s = math.sqrt(sum((v - m) ** 2 for v in x) / (len(x) - 1))
        if variant == "released":
            noisy = softmax([m + e * s**2 for e in xi[b]], 2.0)
            q = [(1 - rho) * a + rho * b for a, b in zip(softmax(x, 2.0), noisy, strict=True)]
            total += 4 * kl(softmax(u[b], 2.0), q)
        else:
            total += soft([v + rho * (m + e * s) for v, e in zip(x, xi[b], strict=True)], u[b], 2.0)
    return total / len(u)


def sp(f, g):
    def rows(x):
        x = [list(image.flatten()) for image in np.asarray(x, dtype=np.float64)]
        dots = [[sum(p * q for p, q in zip(a, b, strict=True)) for b in x] for a in x]
        return [[v / math.sqrt(sum(w * w for w in row)) for v in row] for row in dots]

    a, b = rows(rate(f)), rows(g)
    n = len(a)
    return sum((a[i][j] - b[i][j]) ** 2 for i in range(n) for j in range(n)) / n**2
