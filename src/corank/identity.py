"""What tells one thing that a run was given from another, as a text: for checkpoints that go on with the same alone."""

from __future__ import annotations

import functools
import hashlib
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from corank.checkpoint import fingerprint
from corank.errors import ConfigError

__all__ = ["function_identity"]

_LIBRARIES = ("builtins", "corank", "torch")  # wherever they are installed
_INSTALLED = tuple(sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib"))
_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, Enum)


def function_identity(function: Any) -> str:
    """The name of a function and a SHA-256 of all that decides what it gives: its code, its defaults, the values that
    it closes over, and the functions and numbers of its module that it names. Functions and classes of installed
    packages go by their names.

    Args:
        function: a function, a method, a partial function, a module or any object that can be called.

    Raises:
        ConfigError: when it holds something that tells nothing of itself.
    """
    name = function.__qualname__ if isinstance(function, types.FunctionType) else type(function).__qualname__
    parts = "\0".join(_Parts().of(function, name))
    return f"{name} {hashlib.sha256(parts.encode()).hexdigest()}"


class _Parts:
    """Walks through what a function holds; each object once."""

    def __init__(self) -> None:
        self._seen: dict[int, object] = {}  # held, so that no other object gets its place

    def of(self, value: Any, place: str) -> Iterator[str]:
        """Texts that tell the value from others; ``place`` says where it stands."""
        if isinstance(value, _PLAIN):
            yield repr(value)
        elif id(value) in self._seen:
            yield f"again {list(self._seen).index(id(value))}"
        else:
            self._seen[id(value)] = value
            yield type(value).__qualname__
            yield from self._inside(value, place)

    def _inside(self, value: Any, place: str) -> Iterator[str]:
        if isinstance(value, types.FunctionType):
            yield from self._function(value, place)
        elif isinstance(value, types.CodeType):
            yield from self._code(value, place)
        elif isinstance(value, type):
            yield from self._class(value, place)
        elif isinstance(value, types.ModuleType):
            yield value.__name__
        elif isinstance(value, types.BuiltinFunctionType):
            yield from self._all((value.__name__, value.__self__), place)
        elif isinstance(value, types.MethodType):
            yield from self._all((value.__func__, value.__self__), place)
        elif isinstance(value, functools.partial):
            yield from self._all((value.func, value.args, value.keywords), place)
        else:
            yield from self._data(value, place)

    def _data(self, value: Any, place: str) -> Iterator[str]:
        if isinstance(value, Tensor):
            yield fingerprint([value])
        elif isinstance(value, Mapping):
            yield from self._all((part for item in value.items() for part in item), place)
        elif isinstance(value, (tuple, list)):
            yield from self._all(value, place)
        elif isinstance(value, (set, frozenset)):
            yield from sorted("\0".join(_Parts().of(item, place)) for item in value)
        else:
            yield from self._object(value, place)

    def _all(self, values: Iterable[Any], place: str) -> Iterator[str]:
        for value in values:
            yield from self.of(value, place)
        yield "end"

    def _function(self, function: types.FunctionType, place: str) -> Iterator[str]:
        yield f"{function.__module__}.{function.__qualname__}"
        yield from self._all((function.__defaults__, function.__kwdefaults__), place)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            yield from self._all(_contents(cell), f"{name} of {place}")
        if _is_installed(function.__module__):
            return
        yield from self.of(function.__code__, place)
        for name in sorted(_names(function.__code__)):
            if name in function.__globals__:
                yield from self.of(function.__globals__[name], f"{name} of {place}")

    def _code(self, code: types.CodeType, place: str) -> Iterator[str]:
        """What is done, without where it is written."""
        yield code.co_code.hex()
        yield from self._all((code.co_consts, code.co_names), place)

    def _class(self, value: type, place: str) -> Iterator[str]:
        yield f"{value.__module__}.{value.__qualname__}"
        if not _is_installed(value.__module__):
            own = (part for part in vars(value).values() if isinstance(part, types.FunctionType))
            yield from self._all((*value.__bases__, *own), place)

    def _object(self, value: Any, place: str) -> Iterator[str]:
        """Its class and what it holds or, where that cannot be seen, what it says of itself."""
        yield from self.of(type(value), place)
        if isinstance(value, nn.Module):
            hooks = [name for name in vars(value) if name.endswith("_hooks") or "_hooks_" in name]
            yield from self._all((part for part in vars(value).items() if part[0] not in hooks), place)
            return
        try:
            yield hashlib.sha256(memoryview(value)).hexdigest()  # arrays
            return
        except (TypeError, ValueError, BufferError):
            pass  # no array: it is asked otherwise
        said = repr(value)
        if type(value).__repr__ is not object.__repr__ and " at 0x" not in said:
            yield said
            return
        try:
            held = vars(value)
        except TypeError as error:  # neither a repr nor fields
            raise ConfigError(
                f"a checkpoint cannot tell {place} from others: it holds a {type(value).__name__}, which says nothing "
                "of itself; give its class a __repr__ that tells its settings, or leave checkpoint= out"
            ) from error
        yield from self._all(held.items(), place)


def _contents(cell: types.CellType) -> tuple[Any, ...]:
    """What a function closes over; nothing where that is not there yet."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def _is_installed(module: str) -> bool:
    """Whether a module belongs to a package that stays as it is while one works: its functions' names tell them."""
    package = module.split(".")[0]
    if package in _LIBRARIES:
        return True
    file = vars(sys.modules[package]).get("__file__") if package in sys.modules else None
    return isinstance(file, str) and any(Path(file).is_relative_to(folder) for folder in _INSTALLED)


def _names(code: types.CodeType) -> set[str]:
    """The names of globals and attributes that the code and the functions inside of it use."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return {*code.co_names, *(name for one in inner for name in _names(one))}
