"""Leaky integrate-and-fire neurons and surrogate gradients (Eq. 9-11).

:func:`lif_step` is the model, one time step at a time. :class:`LIF` runs the same arithmetic over a whole sequence
``(T, B, ...)`` as one autograd node that keeps nothing but its input. Both are stateless: no reset has to be called.
"""

import inspect
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from sastc import native
from sastc.checks import check, check_number, check_one_of
from sastc.fields import choices
from sastc.fused import fused


# Derivatives of the spike with respect to d = u - threshold. Each has unit area; gamma is its width.
def triangle(d: Tensor, gamma: float) -> Tensor:
    """Eq. 11: ``max(0, gamma - |d|) / gamma**2``."""
    return d.abs().neg_().add_(gamma).clamp_min_(0).div_(gamma**2)  # in place: memory is what costs here


def rectangle(d: Tensor, gamma: float) -> Tensor:
    """``1 / gamma`` where ``|d| < gamma / 2`` (Wu et al. 2018)."""
    return (d.abs() < gamma / 2).to(d.dtype) / gamma


def sigmoid(d: Tensor, gamma: float) -> Tensor:
    """Derivative of ``sigmoid(d / gamma)``."""
    p = torch.sigmoid(d / gamma)
    return p * (1 - p) / gamma


def atan(d: Tensor, gamma: float) -> Tensor:
    """Derivative of ``atan(pi * d / gamma) / pi`` (Fang et al. 2021)."""
    return 1 / (gamma * (1 + (math.pi * d / gamma).square()))


SURROGATES: dict[str, Callable[[Tensor, float], Tensor]] = {
    function.__name__: function for function in (triangle, rectangle, sigmoid, atan)
}


class _Spike(torch.autograd.Function):
    """Heaviside step forward, surrogate backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(d, surrogate, gamma):
        return (d > 0).to(d.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        d, ctx.surrogate, ctx.gamma = inputs
        ctx.save_for_backward(d)

    @staticmethod
    def backward(ctx, grad):
        (d,) = ctx.saved_tensors
        return grad * SURROGATES[ctx.surrogate](d, ctx.gamma), None, None


def lif_step(
    x: Tensor,
    v: Tensor,
    *,
    decay: float = 0.5,
    threshold: float = 1.0,
    gamma: float = 0.3,
    surrogate: str = "triangle",
    reset: str = "hard",
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """One differentiable LIF step (Eq. 9-11): spikes ``o^t``, potential after the reset, potential ``u^t`` before it.

    `x` is the input current ``I^t``, any shape, and `v` the potential after the previous step's reset, broadcastable.
    """
    u = x + decay * v
    o = _Spike.apply(u - threshold, surrogate, gamma)  # strictly above the threshold fires
    r = o.detach() if detach_reset else o
    return o, (u * (1 - r) if reset == "hard" else u - threshold * r), u


def _membranes(rows: Tensor, u0: Tensor | None, decay: float, threshold: float, reset: str) -> Iterator:
    """Yield ``(u, spikes)`` of every row (N,); the potential accumulates in at least float32.

    Every operation rounds once, none is one of the fused multiply-adds that only some devices and compilers have: that
    is why the compiled kernels below give the same bits.
    """
    dtype = torch.promote_types(rows.dtype, torch.float32)
    v = None if u0 is None else u0.to(dtype)
    for row in rows.unbind():
        u = row.to(dtype) if v is None else row + decay * v
        spikes = (u > threshold).to(dtype)
        yield u, spikes
        v = u * (1 - spikes) if reset == "hard" else u - threshold * spikes


@fused
def _spikes(rows: Tensor, u0: Tensor | None, decay: float, threshold: float, reset: str) -> Tensor:
    """Spikes (T, N) of currents (T, N)."""
    return torch.stack([spikes.to(rows.dtype) for _, spikes in _membranes(rows, u0, decay, threshold, reset)])


@fused
def _gradients(
    grad: Tensor,
    rows: Tensor,
    u0: Tensor | None,
    decay: float,
    threshold: float,
    gamma: float,
    surrogate: str,
    reset: str,
    detach_reset: bool,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the currents (T, N) and of the initial potential (N,) if there is one, last step first."""
    steps, grads, grad_v = list(_membranes(rows, u0, decay, threshold, reset)), [], None
    for g in reversed(grad.unbind()):
        u, spikes = steps.pop()
        slope = SURROGATES[surrogate](u - threshold, gamma)
        grad_u = g * slope
        if grad_v is not None:  # through the reset: dv/du = 1 - o - u do/du (hard) or 1 - V_th do/du (soft)
            through = 1 - spikes if reset == "hard" else torch.ones_like(u)
            if not detach_reset:
                through = through - slope * (u if reset == "hard" else threshold)
            grad_u = grad_u + grad_v * through
        grads.append(grad_u.to(rows.dtype))
        grad_v = decay * grad_u
    return torch.stack(grads[::-1]), None if u0 is None else grad_v


class _Rows:
    """A sequence (T, B, ...) seen as (T, N) in the order in which a step lies in memory; a copy only where it has gaps.

    Neurons are independent of each other, so any order will do, and this one reads any layout from end to end.
    """

    def __init__(self, x: Tensor):
        self.dense, self.shape = x.is_contiguous(), x.shape
        if not self.dense:
            self.order = [0, *sorted(range(1, x.dim()), key=x.stride, reverse=True)]
            self.shape = [x.shape[d] for d in self.order]
            self.inverse = sorted(range(x.dim()), key=self.order.__getitem__)

    def flat(self, x: Tensor) -> Tensor:
        """``(T, B, ...)`` to (T, N)."""
        return (x if self.dense else x.permute(self.order)).flatten(1)

    def step(self, u: Tensor) -> Tensor:
        """``(B, ...)``, or what broadcasts to it, to (N,)."""
        shape = self.shape if self.dense else [self.shape[i] for i in self.inverse]
        return self.flat(u.expand(shape[1:])[None])[0]

    def back(self, rows: Tensor) -> Tensor:
        """Undo :meth:`flat`, for any number of rows."""
        x = rows.view(len(rows), *self.shape[1:])
        return x if self.dense else x.permute(self.inverse)


def _vmap_first(x, u0, dims, size):
    """Put the mapped dimension behind time; LIF is elementwise in every other dimension."""
    x = x.unsqueeze(1).expand(-1, size, *x.shape[1:]) if dims[0] is None else x.movedim(dims[0], 1)
    if u0 is not None:
        u0 = u0.unsqueeze(0) if dims[1] is None else u0.movedim(dims[1], 0)
    return x, u0


class _LIF(torch.autograd.Function):
    """All T steps as one node: keeps only its input and recomputes the potentials in the backward pass."""

    @staticmethod
    def forward(x, u0, decay, threshold, gamma, surrogate, reset, detach_reset):
        rows = _Rows(x)
        u0 = None if u0 is None else rows.step(u0)
        kernel = native.spikes if native.can(x) else _spikes
        return rows.back(kernel(rows.flat(x), u0, decay, threshold, reset))

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, u0, *ctx.options = inputs
        ctx.save_for_backward(x, u0)

    @staticmethod
    def backward(ctx, grad):
        x, u0 = ctx.saved_tensors
        # an autograd node of its own costs time in small layers: only where this one is differentiated or mapped
        watched = torch.is_grad_enabled() or torch._C._are_functorch_transforms_active()
        found = (_LIFGrad.apply if watched else _LIFGrad.forward)(grad, x, u0, *ctx.options)
        return *((found, None) if u0 is None else found), *[None] * 6

    @staticmethod
    def vmap(info, dims, x, u0, *options):
        x, u0 = _vmap_first(x, u0, dims, info.batch_size)
        return _LIF.apply(x, u0, *options), 1


class _LIFGrad(torch.autograd.Function):
    """The backward recursion of :class:`_LIF`."""

    @staticmethod
    def forward(grad, x, u0, decay, threshold, gamma, surrogate, reset, detach_reset):
        rows = _Rows(x)
        start = None if u0 is None else rows.step(u0)
        if native.can(x, surrogate) and grad.dtype == x.dtype:
            kernel = native.gradients
        else:  # a sigmoid's last bit differs in compiled code, and depends on an element's place in eager code
            kernel = _gradients.eager if surrogate == "sigmoid" else _gradients
        options = (decay, threshold, gamma, surrogate, reset, detach_reset)
        grad_x, grad_v = kernel(rows.flat(grad), rows.flat(x), start, *options)
        grad_x = rows.back(grad_x)
        return grad_x if u0 is None else (grad_x, rows.back(grad_v[None])[0].sum_to_size(u0.shape).to(u0.dtype))

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, *grads):
        raise NotImplementedError("a surrogate gradient has no second derivative")

    @staticmethod
    def vmap(info, dims, grad, x, u0, *options):
        x, u0 = _vmap_first(x, u0, dims[1:3], info.batch_size)
        grad, _ = _vmap_first(grad, None, dims[:1], info.batch_size)
        if u0 is not None:  # one gradient for each mapped element, even where they share u0
            u0 = u0.expand(info.batch_size, *u0.shape[1:])
        return _LIFGrad.apply(grad, x, u0, *options), (1 if u0 is None else (1, 0))


class _Node(torch.autograd.Function):
    """:class:`_LIF` where nothing maps or traces it: a context of its own costs what a small layer's neurons cost."""

    @staticmethod
    def forward(ctx, x, u0, *options):
        _LIF.setup_context(ctx, (x, u0, *options), None)
        return _LIF.forward(x, u0, *options)

    backward = _LIF.backward


for _function in (_LIF, _LIFGrad):  # else torch inspects it at every call, a third of a small layer's time
    _function.forward.__signature__ = inspect.signature(_function.forward)


PARAMETERS = ("decay", "threshold", "gamma", "surrogate", "reset", "detach_reset")


class LIF(nn.Module):
    """Multi-step leaky integrate-and-fire neuron (Eq. 9-11).

    ``u^t = decay * v^{t-1} + I^t``; a spike where ``u^t > threshold``; then the reset gives ``v^t``.

    Parameters
    ----------
    decay : float
        Leak λ in (0, 1]; 0.5 in the paper.
    threshold : float
        Firing threshold V_th > 0; 1 in the paper.
    gamma : float
        Width of the surrogate gradient, in units of the potential.
    surrogate : {"triangle", "rectangle", "sigmoid", "atan"}
        Shape of the surrogate gradient; triangle is Eq. 11.
    reset : {"hard", "soft"}
        To zero (Eq. 10), or by subtraction of the threshold.
    detach_reset : bool
        Whether the gradient ignores the spike inside the reset.

    Raises
    ------
    ValueError
        A parameter out of range, an input without a time dimension, or an initial potential of another shape.

    Notes
    -----
    A current that is NaN gives no spike: NaN is not above the threshold, and a network goes silent instead of NaN.
    """

    def __init__(
        self,
        decay: float = 0.5,
        threshold: float = 1.0,
        gamma: float = 0.3,  # paper: 0.3  released: 1.0
        surrogate: str = "triangle",
        reset: str = "hard",
        detach_reset: bool = False,
    ):
        super().__init__()
        self.decay = check_number("decay", decay, 0, 1, open_low=True)
        self.threshold = check_number("threshold", threshold, 0, open_low=True)
        self.gamma = check_number("gamma", gamma, 0, open_low=True)
        check("detach_reset", detach_reset, isinstance(detach_reset, bool), "True or False")
        check_one_of("surrogate", surrogate, SURROGATES)
        check_one_of("reset", reset, choices("reset"))
        self.surrogate, self.reset, self.detach_reset = surrogate, reset, detach_reset

    def forward(self, x: Tensor, u0: Tensor | float | None = None) -> Tensor:
        """Spikes ``(T, B, ...)`` for currents ``(T, B, ...)`` and an initial potential ``(B, ...)``, default 0."""
        u0 = self._checked(x, u0)
        options = (self.decay, self.threshold, self.gamma, self.surrogate, self.reset, self.detach_reset)
        watched = torch._C._are_functorch_transforms_active() or torch.compiler.is_compiling()
        return (_LIF if watched else _Node).apply(x, u0, *options)

    def membrane(self, x: Tensor, u0: Tensor | float | None = None) -> Tensor:
        """Potentials ``u^t`` before the reset, ``(T, B, ...)``, differentiable; at least float32."""
        u0 = self._checked(x, u0)
        dtype = torch.promote_types(x.dtype, torch.float32)
        v = x.new_zeros(x.shape[1:], dtype=dtype) if u0 is None else u0.to(dtype)
        potentials, options = [], {name: getattr(self, name) for name in PARAMETERS}
        for current in x:
            _, v, u = lif_step(current.to(dtype), v, **options)
            potentials.append(u)
        return torch.stack(potentials)

    @staticmethod
    def _checked(x: Tensor, u0: Tensor | float | None) -> Tensor | None:
        """The initial potential as a tensor."""
        if x.dim() < 2 or x.shape[0] == 0 or not x.is_floating_point():
            raise ValueError(f"x has shape {tuple(x.shape)} and {x.dtype}: must be floating point (T, B, ...), T >= 1")
        if not (u0 is None or isinstance(u0, Tensor)):
            u0 = x.new_tensor(u0, dtype=torch.promote_types(x.dtype, torch.float32))
        if u0 is not None:
            sides = zip(u0.shape[::-1], x.shape[:0:-1], strict=False)
            if u0.dim() >= x.dim() or any(n not in (1, side) for n, side in sides):
                raise ValueError(f"u0 has shape {tuple(u0.shape)}: must be, or broadcast to, {tuple(x.shape[1:])}")
        return u0

    def extra_repr(self) -> str:
        """Parameters in the printed module."""
        return ", ".join(f"{name}={getattr(self, name)}" for name in PARAMETERS)
