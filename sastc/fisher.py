"""Temporal Fisher information (Appendix 1, Eq. 1): how much the weights matter for what is known after t steps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from sastc.checks import check, check_integer, check_one_of

LABELS = ("true", "sampled", "expected")


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards every module has its own mode again."""
    modes = {module: module.training for module in model.modules()}
    compiled = any(hasattr(module, "_orig_mod") or module._compiled_call_impl is not None for module in modes)
    # code compiled before would not run the hooks that measure
    eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    model.eval()
    try:
        with eager:
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def batch_dim(x: Tensor) -> int:
    """Dimension of the samples in vectors (B, F), images (B, C, H, W) or sequences (T, B, C, H, W)."""
    check("x", tuple(x.shape), x.dim() in (2, 4, 5), "(B, F), (B, C, H, W) or (T, B, C, H, W)")
    return int(x.dim() == 5)


def fisher_trace(
    model: nn.Module, x: Tensor, y: Tensor | None = None, *, labels: str = "true", seed: int = 0, chunk: int = 16
) -> Tensor:
    """Trace of the Fisher information after t = 1 ... T steps (Appendix 1, Eq. 1).

    ``FIM^t = 1/n Σ_j ‖∇_w log P_w(y_j | x_j up to step t)‖²`` over all weights, in evaluation mode: ``(T,)`` in
    float64, the mean over samples of :func:`squared_gradients`, which explains parameters and errors.
    """
    # paper: one gradient a sample  Kim et al. 2023, code: the square of the mean gradient of each batch
    return squared_gradients(model, x, y, labels=labels, seed=seed, chunk=chunk).mean(1)


def squared_gradients(
    model: nn.Module, x: Tensor, y: Tensor | None = None, *, labels: str = "true", seed: int = 0, chunk: int = 16
) -> Tensor:
    """``‖∇_w log P_w(y | x up to step t)‖²`` of every sample after every number of steps: ``(T, B)`` in float64.

    It is NaN for a sample and number of steps whose logits are no distribution: NaN, +inf, or −inf alone.

    Parameters
    ----------
    model : nn.Module
        With ``logits_by_step(x) -> (T, B, N)``, the logits after t = 1 ... T steps, as :class:`sastc.models.Network`;
        its state is left as it is.
    x : Tensor
        Images (B, C, H, W), vectors (B, F) or sequences (T, B, C, H, W).
    y : Tensor, optional
        True labels (B,), for "true" alone.
    labels : {"true", "sampled", "expected"}
        Where y comes from, which Eq. 1 leaves open: the data (the *empirical* Fisher information of the text); one
        draw from the model's own ``P(y | x up to step t)`` for each sample and step, by `seed`; or the exact
        expectation over that distribution, which takes N times as long.
    chunk : int
        Samples whose gradients are in memory at a time, each as large as the weights.

    Raises
    ------
    ValueError
        Images, labels or a setting of another kind; or labels are to be sampled, and the logits are no distribution.
    """
    check_one_of("labels", labels, LABELS)
    chunk = check_integer("chunk", chunk, 1)
    able = callable(getattr(model, "logits_by_step", None))
    check("model", type(model).__name__, able, "a module with logits_by_step(x) -> (T, B, N)")
    dim = batch_dim(x)
    shape, expected = y if y is None else tuple(y.shape), (x.shape[dim],) if labels == "true" else None
    check("y", shape, shape == expected, f"{expected} for labels={labels!r}")

    with evaluation_mode(model):
        with torch.no_grad():
            p = torch.cat([model.logits_by_step(part).softmax(-1) for part in x.split(chunk, dim)], 1)
        steps, batch, classes = p.shape
        if labels == "true":
            check("y", y.dtype, not y.is_floating_point(), "integers")
            check("y", y.unique().tolist(), bool(((y >= 0) & (y < classes)).all()), f"in 0 ... {classes - 1}")
            choice = y.to(p.device).expand(steps, batch).unsqueeze(-1)
        elif labels == "sampled":
            allowed = "true or expected where the model's logits are no distribution (NaN or +inf)"
            check("labels", labels, bool(p.isfinite().all()), allowed)
            generator = torch.Generator(p.device).manual_seed(seed)
            choice = torch.multinomial(p.flatten(0, 1), 1, generator=generator).unflatten(0, (steps, batch))
        else:
            choice = torch.arange(classes, device=p.device).expand_as(p)
        with torch.autocast(x.device.type, enabled=False):  # batch norms under vmap take one type alone
            norms = vmap(_squared_norms(model, dim), (dim, 1), 1, chunk_size=chunk)(x, choice)  # (T, B, 1 or N)
    return (norms * p).sum(-1) if labels == "expected" else norms.squeeze(-1)


class _LogProbabilities(nn.Module):
    """``log P(y | x up to step t)`` (T, N) of one sample."""

    def __init__(self, model: nn.Module, dim: int):
        super().__init__()
        self.model, self.dim = model, dim

    def forward(self, x: Tensor) -> Tensor:
        return self.model.logits_by_step(x.unsqueeze(self.dim))[:, 0].log_softmax(-1)


def _squared_norms(model: nn.Module, dim: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Function of one sample and its labels (T, K) that returns (T, K) squared norms."""
    network = _LogProbabilities(model, dim)
    weights = {name: weight.detach() for name, weight in network.named_parameters()}

    def squared_norms(x: Tensor, choice: Tensor) -> Tensor:
        chosen, pull = vjp(lambda w: functional_call(network, w, (x,)).gather(-1, choice), weights)
        # one backward pass at a time: together they would hold T·K gradients of every sample
        rows = torch.eye(chosen.numel(), dtype=chosen.dtype, device=chosen.device)
        gradients = (pull(row.view_as(chosen))[0] for row in rows)
        norms = [sum(g.square().sum(dtype=torch.float64) for g in gradient.values()) for gradient in gradients]
        return torch.stack(norms).view_as(chosen)

    return squared_norms
