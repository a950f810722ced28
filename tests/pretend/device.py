"""A pretend device on the CPU: tensors that say ``pretend:0``, and refuse to meet tensors of the CPU.

Importing this module registers it with torch, for the whole process and for good, so tests import it in a process of
their own. A tensor of the device wraps a CPU tensor, and computes with it: results are those of the CPU, bit for bit.
What it finds is placement: an operation that mixes devices, a tensor of the device read by numpy, a random generator of
the other device. It also counts what a GPU would be asked for: operations started, and those that wait for it.

What it cannot see: whether a GPU has a kernel for an operation and a dtype, and how that rounds; tensors without
dimensions, which torch lets meet any device; a generator of the device that draws numbers for the CPU; whether memory
still being copied is changed; several streams; what C++ does with storage by itself; anything about time but the
counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

__all__ = ["PRETEND", "Counts", "PretendTensor", "counted"]

_setup_privateuseone_for_python_backend("pretend")
PRETEND = torch.device("pretend:0")
_CPU = torch.device("cpu")

_ACROSS = {"copy_", "_to_copy", "set_data", "lift_fresh"}  # may take tensors of both devices
_INDEXING = {"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_"}  # indices may be of the CPU
_READS = {"_local_scalar_dense", "equal"}  # give numbers, not tensors
_WAITS = {*_READS, "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount"}
_VIEWS = {
    "view", "_unsafe_view", "reshape", "t", "transpose", "permute", "select", "slice", "expand", "unsqueeze", "squeeze",
    "detach", "alias", "split", "split_with_sizes", "unbind", "diagonal", "as_strided", "_reshape_alias", "unfold",
    "lift_fresh", "narrow", "movedim", "empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided",
}  # fmt: skip


@dataclass
class Counts:
    """Operations that the device was asked for, and those of them that a program waits for, by name."""

    started: int = 0
    waits: int = 0
    names: dict[str, int] = field(default_factory=dict)

    def note(self, name: str, waits: bool) -> None:
        if name not in _VIEWS:
            self.started += 1
        if waits:
            self.waits += 1
            self.names[name] = self.names.get(name, 0) + 1


_COUNTS: list[Counts] = []


@contextmanager
def counted() -> Iterator[Counts]:
    """Counts what happens within, in all threads."""
    found = Counts()
    _COUNTS.append(found)
    try:
        yield found
    finally:
        _COUNTS.remove(found)


class PretendTensor(Tensor):
    """A tensor of the device; ``raw`` is the CPU tensor that it wraps."""

    raw: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: Tensor, requires_grad: bool = False) -> PretendTensor:
        made = Tensor._make_wrapper_subclass(
            cls, raw.size(), strides=raw.stride(), dtype=raw.dtype, layout=raw.layout, device=PRETEND,
            requires_grad=requires_grad,
        )  # fmt: skip
        made.raw = raw
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"PretendTensor({self.raw})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            made: Tensor = PretendTensor(self.raw.clone())
            made = torch.nn.Parameter(made) if isinstance(self, torch.nn.Parameter) else made
            memo[id(self)] = made.requires_grad_(self.requires_grad)
        return memo[id(self)]

    def data_ptr(self) -> int:
        return self.raw.data_ptr()

    def untyped_storage(self) -> Any:
        return self.raw.untyped_storage()

    def tolist(self) -> Any:
        _note("tolist", waits=True)
        return self.raw.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert pretend:0 device type tensor to numpy. Use Tensor.cpu() first")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


@dataclass(frozen=True)
class _Operation:
    """What is known of one of torch's operations."""

    name: str
    writes: tuple[int, ...]  # places of the arguments that it writes

    @classmethod
    def of(cls, func: Any) -> _Operation:
        arguments = func._schema.arguments
        writes = tuple(place for place, one in enumerate(arguments) if one.alias_info and one.alias_info.is_write)
        return cls(func._schema.name.partition("::")[2], writes)


_OPERATIONS: dict[Any, _Operation] = {}


class _Arguments:
    """An operation's arguments as CPU tensors, and which tensors there were."""

    def __init__(self, args: Any, kwargs: dict[str, Any]) -> None:
        self.wrappers: dict[int, PretendTensor] = {}  # by the identity of what they wrap
        self.plain = False  # whether there is a CPU tensor with dimensions
        self.args = [self._raw(one) for one in args]
        self.kwargs = {name: self._raw(one) for name, one in kwargs.items()}

    def _raw(self, value: Any) -> Any:
        if isinstance(value, PretendTensor):
            self.wrappers[id(value.raw)] = value
            return value.raw
        if isinstance(value, Tensor):
            self.plain = self.plain or value.dim() > 0
        elif isinstance(value, (list, tuple)):
            return [self._raw(one) for one in value]
        return value

    def wrapped(self, value: Any) -> Any:
        """On the device; what was written in place stays the tensor that it was."""
        if isinstance(value, Tensor):
            known = self.wrappers.get(id(value))
            return PretendTensor(value) if known is None else known
        return type(value)(self.wrapped(one) for one in value) if isinstance(value, (list, tuple)) else value


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What the operation gives, its tensors on the device where a real one's would be."""
    operation = _OPERATIONS.get(func) or _OPERATIONS.setdefault(func, _Operation.of(func))
    name, given, asked = operation.name, _Arguments(args, kwargs), kwargs.get("device")
    if asked is not None and torch.device(asked).type not in ("pretend", "cpu", "meta"):
        raise RuntimeError(f"{func}: from pretend:0 to {asked}")
    _check_meeting(func, operation, args, given)
    on_device = torch.device(asked).type == "pretend" if asked is not None else bool(given.wrappers)
    if name == "copy_":
        on_device = isinstance(args[0], PretendTensor)
    generator = kwargs.get("generator")
    if generator is not None and (generator._cdata in _GENERATORS) != on_device:
        raise RuntimeError("a generator of one device cannot draw numbers on the other")
    if _COUNTS:
        _note(name, _waits(name, args, kwargs, on_device))
    if on_device and asked is not None:
        given.kwargs["device"] = _CPU
    found = func(*given.args, **given.kwargs)
    return given.wrapped(found) if on_device and name not in _READS else found


def _check_meeting(func: Any, operation: _Operation, args: Any, given: _Arguments) -> None:
    """Raises RuntimeError where tensors of both devices meet, as CUDA's operations do."""
    name, plain = operation.name, given.plain
    if name in _ACROSS:
        return
    if name in _INDEXING and isinstance(args[0], PretendTensor):
        value = args[2] if len(args) > 2 else None
        plain = isinstance(value, Tensor) and not isinstance(value, PretendTensor) and value.dim() > 0
    written = [args[place] for place in operation.writes if place < len(args)]
    if plain or any(isinstance(one, Tensor) and not isinstance(one, PretendTensor) for one in written):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found pretend:0 and cpu: {func}")


def _waits(name: str, args: Any, kwargs: dict[str, Any], on_device: bool) -> bool:
    """Whether a program would wait for the device: for numbers, for sizes that depend on them, for copies."""
    if name in ("_to_copy", "copy_"):
        crosses = isinstance(args[1] if name == "copy_" else args[0], PretendTensor) != on_device
        return crosses and not (on_device and (kwargs.get("non_blocking") is True or args[2:3] == (True,)))
    if name in _INDEXING:
        indices = [one for one in args[1] if one is not None]
        return any(one.dtype == torch.bool or not isinstance(one, PretendTensor) for one in indices)
    return name in _WAITS


def _note(name: str, waits: bool) -> None:
    for one in _COUNTS:
        one.note(name, waits)


# What torch decides before a tensor of the device is there. Tensors begin as empty ones, here as everywhere; functions
# whose results are resized afterwards are made on the CPU, and so is what torch.tensor reads.

_LIBRARY = torch.library.Library("aten", "IMPL")
_EMPTY, _STRIDED = torch.empty, torch.empty_strided
_LIBRARY.impl("empty.memory_format", lambda size, **how: PretendTensor(_EMPTY(size, **_on_cpu(how))), "PrivateUse1")
_LIBRARY.impl(
    "empty_strided", lambda size, stride, **how: PretendTensor(_STRIDED(size, stride, **_on_cpu(how))), "PrivateUse1"
)

_GENERATORS: dict[
    int, torch.Generator
] = {}  # of the device, by what they wrap; kept, so that nothing else takes their place
_generator, _autocast = torch.Generator, torch.autocast


def _is_pretend(device: Any) -> bool:
    return device is not None and torch.device(device).type == "pretend"


def _on_cpu(how: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in how.items() if name in ("dtype", "memory_format") and value is not None}


def _made_first(make: Any) -> Any:
    def made(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        if not _is_pretend(device):
            return make(*args, **kwargs) if device is None else make(*args, device=device, **kwargs)
        return PretendTensor(make(*args, **kwargs))

    return made


class _Generator:
    """A class, since annotations name it."""

    def __new__(cls, device: Any = "cpu") -> Any:
        made = _generator("cpu" if _is_pretend(device) else device)
        if _is_pretend(device):
            _GENERATORS[made._cdata] = made
        return made


class _Autocast(_autocast):
    """Off on the device: what it computes is the CPU's business."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        off = {"enabled": False} if device_type == "pretend" else {}
        super().__init__("cpu" if device_type == "pretend" else device_type, *args, **{**kwargs, **off})


for _name in ("tensor", "arange", "linspace", "eye", "randperm"):
    setattr(torch, _name, _made_first(getattr(torch, _name)))
torch.Generator, torch.autocast = _Generator, _Autocast  # pyright: ignore
