"""Elementwise kernels, compiled by ``torch.compile`` once that pays.

Compiling takes seconds, so a kernel runs eagerly until it has processed about as much as could have been processed in
that time (never more than twice as slow as the better choice made in advance). Small runs never compile. On the CPU
:mod:`sastc.native` is used instead wherever there is a C++ compiler.
"""

import contextlib
import functools
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

COMPILE_AFTER = 2**30  # elements that a kernel processes eagerly first: seconds on one core
GPU_FACTOR = 2**6  # times as many on a GPU, which is so much faster (estimated, not measured)
# On a GPU: a product and a sum round twice, quotients are correctly rounded, and one kernel writes all rows of a
# result, also in bf16.
GPU_OPTIONS = {
    "emulate_precision_casts": True,
    "eager_numerics.division_rounding": True,
    "max_pointwise_cat_inputs": 0,
    "max_complex_pointwise_cat_inputs": 0,
}


def fused(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function of (T, N) and (N,) tensors and of options that is elementwise along N.

    The results are those of the undecorated function to the last bit, whenever it is compiled; on a GPU as far as this
    version of torch has the options for it. Where compiling fails, say for lack of a compiler, a warning says
    so once and the function stays as it is.
    """
    processed: Counter = Counter()
    met: set[tuple] = set()

    @functools.cache
    def compiled(device: str) -> Callable[..., Any]:  # when needed: torch.compile alone takes a second to import
        from torch._inductor import config

        known = config.get_config_copy()
        options = {"cpp.dynamic_threads": True} if device == "cpu" else GPU_OPTIONS
        options = {name: value for name, value in options.items() if name in known}
        # one graph serves all N; there is one for each T, data type and set of options
        return torch.compile(kernel, fullgraph=True, dynamic=True, options=options)

    @functools.wraps(kernel)
    def run(*arguments: Any) -> Any:
        # the last: where operations are counted, or done without numbers, as companion.sizing does
        if torch.compiler.is_compiling() or _broken or torch._C._len_torch_dispatch_stack() > 0:
            return kernel(*arguments)
        first = arguments[0]
        variant = tuple(_kind(a) if isinstance(a, Tensor) else a for a in arguments)
        device = first.device.type
        if processed[variant] < COMPILE_AFTER * (1 if device == "cpu" else GPU_FACTOR):
            processed[variant] += first.numel()
            return kernel(*arguments)
        # .data: tensors of their own, since of a view the shape of its base would be part of the graph
        bare = [a.data if isinstance(a, Tensor) else a for a in arguments]
        try:
            if variant in met:  # lifting the limit takes longer than a small kernel
                with contextlib.suppress(torch._dynamo.exc.FailOnRecompileLimitHit):
                    return compiled(device)(*bare)
            met.add(variant)
            with torch._dynamo.config.patch(recompile_limit=1024, accumulated_recompile_limit=1024):
                return compiled(device)(*bare)
        except Exception as error:
            result = kernel(*arguments)  # raises again if the caller made a mistake
            _broken.append(error)
            warnings.warn(f"neurons run uncompiled, several times slower: {error}", RuntimeWarning, stacklevel=2)
            return result

    run.eager = kernel  # type: ignore[attr-defined]
    return run


_broken: list[Exception] = []


def _kind(tensor: Tensor) -> tuple:
    return tensor.dtype, tensor.device.type, len(tensor) if tensor.dim() > 1 else 0
