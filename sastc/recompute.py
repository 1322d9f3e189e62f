"""Activation checkpointing: keep the input of a block, compute the rest again in the backward pass."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def enable(module: nn.Module) -> None:
    """Have all parts of a module that can, those with a field ``recompute``, keep as little as possible."""
    for part in module.modules():
        if hasattr(part, "recompute"):
            part.recompute = True


def recomputed(call: Callable, *arguments: Any, owner: nn.Module | None = None) -> Any:
    """``call(*arguments)``, a pure function of them and of the layers of `owner`, that keeps its arguments alone.

    Values and gradients are the same. A batch norm counts a batch once in its running statistics: the second forward
    pass counts it in copies, which are thrown away.
    """
    contexts = lambda: (contextlib.nullcontext(), _counting_in_copies(owner))  # noqa: E731
    return checkpoint(call, *arguments, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


@contextlib.contextmanager
def _counting_in_copies(module: nn.Module | None) -> Iterator[None]:
    modules = module.modules() if module is not None else ()
    norms = [m for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    buffers = [(norm, name, buffer) for norm in norms for name, buffer in norm.named_buffers()]
    for norm, name, buffer in buffers:
        setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, name, buffer in buffers:
            setattr(norm, name, buffer)


def wanted(module: nn.Module) -> bool:
    """Whether a module with a field ``recompute`` is in a forward pass that a backward pass will follow."""
    return module.recompute and module.training and torch.is_grad_enabled()
