"""A second device that every machine has, as a rehearsal for a GPU.

Its tensors lie in the CPU's memory but are no CPU tensors: an operation on both kinds fails as it would on a GPU, and
every copy between the two is counted. Arithmetic is the CPU's, so results have the CPU's bits. Not rehearsed: autocast,
kernels of a GPU, several processes.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "second"
aten = torch.ops.aten
COPIES = (aten.copy_, aten._to_copy)
MIXED = (*COPIES, aten.index, aten.index_put_)  # a GPU's tensor takes the CPU's indices
# Operations whose result is a number, or of a size, that the host has to wait for.
READS = (aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.bincount, aten._unique2, aten.equal)


class _Module(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


class SecondTensor(Tensor):
    """A tensor of the second device; `held` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor):
        where = dict(dtype=held.dtype, device=f"{NAME}:0", strides=held.stride(), storage_offset=held.storage_offset())
        made = Tensor._make_wrapper_subclass(cls, held.shape, **where)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), options=None):
        raise RuntimeError(f"{function}: a tensor of the second device outside of second_device()")

    def __repr__(self, **_: Any) -> str:
        return f"SecondTensor({self.held})"

    def __reduce_ex__(self, protocol: int):
        return self.held.__reduce_ex__(protocol)  # files hold CPU tensors

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def as_subclass(self, cls: type) -> "SecondTensor":
        made = SecondTensor if cls is Tensor else type(cls.__name__, (cls, SecondTensor), {})
        return SecondTensor.__new__(made, self.held)


class _Operations(TorchDispatchMode):
    """Run every operation on the tensors held."""

    def __init__(self, copies: Counter):
        super().__init__()
        self.copies = copies

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        options = dict(options or {})
        packet, tensors = function.overloadpacket, [a for a in tree_leaves((arguments, options)) if _is(a, Tensor)]
        second = any(_is(a, SecondTensor) for a in tensors)
        if second and packet not in MIXED and any(a.dim() and not _is(a, SecondTensor) for a in tensors):
            raise RuntimeError(f"{function}: tensors of the CPU and of the second device")
        target = _on_second(options["device"]) if options.get("device") else second
        if packet in COPIES:
            source = arguments[packet is aten.copy_]
            target = _is(arguments[0], SecondTensor) if packet is aten.copy_ else target
            self.copies["to the host"] += _is(source, SecondTensor) and not target
            self.copies["from the host"] += target and not _is(source, SecondTensor)
        self.copies["to the host"] += second and packet in READS
        if options.get("device") and target:
            options["device"] = torch.device("cpu")
        known = {id(a.held): a for a in tensors if _is(a, SecondTensor)}  # an operation in place returns its argument
        arguments, options = tree_map(lambda a: a.held if _is(a, SecondTensor) else a, (arguments, options))
        result = function(*arguments, **options)

        def there(value: Any) -> Any:
            return known[id(value)] if id(value) in known else SecondTensor(value) if _is(value, Tensor) else value

        return tree_map(there, result) if target else result


class _Made(TorchFunctionMode):
    """torch.tensor asks the device for memory, past all Python."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        options = dict(options or {})
        if function in (torch.tensor, torch.as_tensor) and _on_second(options.get("device", "cpu")):
            device = options.pop("device")
            return function(*arguments, **options).to(device)
        return function(*arguments, **options)


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind)


def _on_second(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


@contextlib.contextmanager
def second_device() -> Iterator[tuple[torch.device, Counter]]:
    """Yield the device, and the number of copies "to the host" and "from the host" so far."""
    if not hasattr(torch, NAME):
        _setup_privateuseone_for_python_backend(NAME, _Module())
    copies: Counter = Counter()
    was = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a new layout is a new tensor
    try:
        with _Operations(copies), _Made():
            yield torch.device(NAME, 0), copies
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(was)
