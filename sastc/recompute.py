"""Activation checkpointing: keep the input of a block, compute the rest again in the backward pass."""

import contextlib
from collections.abc import Callable
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
    contexts = contextlib.nullcontext(), _CountingInCopies(owner)
    return checkpoint(call, *arguments, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: contexts)


class _CountingInCopies(contextlib.AbstractContextManager):
    """Inside, the batch norms of a module have copies of their buffers; may be entered for every backward pass."""

    def __init__(self, module: nn.Module | None):
        modules = module.modules() if module is not None else ()
        self.norms = [m for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def __enter__(self):
        self.buffers = [(norm, name, buffer) for norm in self.norms for name, buffer in norm.named_buffers()]
        for norm, name, buffer in self.buffers:
            setattr(norm, name, buffer.clone())

    def __exit__(self, *_):
        for norm, name, buffer in self.buffers:
            setattr(norm, name, buffer)


def wanted(module: nn.Module) -> bool:
    """Whether a module is asked to recompute, and a backward pass will follow."""
    return module.recompute and module.training and torch.is_grad_enabled()
