"""Whole numbers as an arithmetic code whose chances adapt after every decision: one at a time, so in C++.

``R`` rows, ``C`` columns. All is computed in whole numbers, so that reader and writer come to the same chances on every
machine, with the kernel or without.
"""

from __future__ import annotations

import ctypes
import math
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from corank.errors import ArtifactError, CorankWarning
from corank.kernels.build import NotBuiltError, built
from corank.kernels.trellis import MACHINES, tables

__all__ = ["Layout", "read", "write"]

_MOST_COUNTED, _FARTHEST, _UNIT = 1023, 3071, 256
_LOGARITHMS = np.array([round(_UNIT * math.log(count + 0.4)) for count in range(_MOST_COUNTED + 2)], np.int32)
_CHANCES = np.array(
    [min(65535, max(1, round(65536 / (1 + math.exp(-x / _UNIT))))) for x in range(-_FARTHEST, _FARTHEST + 1)], np.int32
)


@dataclass(frozen=True)
class Layout:
    """How a matrix is looked at.

    Attributes:
        places: columns of a channel, which divide the columns.
        half: the most that a number may be away from zero (in its grid, where there is a trellis).
        states: of the machine whose paths the columns are; 0 for none.
    """

    places: int
    half: int
    states: int = 0


def write(values: np.ndarray, layout: Layout) -> bytes:
    """The bytes of whole numbers ``(R, C)`` from ``-half`` to ``half``."""
    library = _library()
    numbers = np.ascontiguousarray(values, np.int32)
    tables = _tables(layout.states)
    out = np.empty(numbers.size // 2 + 64, np.uint8)
    for _ in range(2):
        size = library.corank_adaptive_write(
            numbers.ctypes.data, *numbers.shape, layout.places, layout.half, layout.states,
            *(table.ctypes.data for table in tables), out.ctypes.data, out.size,
        )  # fmt: skip
        if size <= out.size:
            break
        out = np.empty(size, np.uint8)
    return out[:size].tobytes()


def read(data: bytes, shape: tuple[int, int], layout: Layout) -> np.ndarray:
    """The numbers ``(R, C)`` int32 that :func:`write` was given.

    Raises:
        ArtifactError: for bytes that are not those of such numbers.
    """
    library = _library()
    values = np.empty(shape, np.int32)
    given = np.frombuffer(data, np.uint8) if data else np.zeros(1, np.uint8)
    fault = library.corank_adaptive_read(
        given.ctypes.data, len(data), *shape, layout.places, layout.half, layout.states,
        *(table.ctypes.data for table in _tables(layout.states)), values.ctypes.data,
    )  # fmt: skip
    if fault:
        raise ArtifactError(_FAULTS[fault].format(half=layout.half))
    return values


_FAULTS = {1: "a coded number is more than {half} from zero", 2: "an arithmetic code does not end where it should"}


def _tables(states: int) -> tuple[np.ndarray, ...]:
    return _LOGARITHMS, _CHANCES, *tables(states or min(MACHINES))  # of no machine nothing is read


@cache
def _library() -> ctypes.CDLL | None:
    """The kernel; None, said once, where it cannot be had."""
    try:
        library = built(Path(__file__).with_name("adaptive.cpp"))
    except NotBuiltError as error:
        warnings.warn(
            f"adaptive codes are read and written without their kernel: {error}; Python gives the same, a hundred times "
            "slower. The kernel needs g++ or clang++, and a cache folder that can be written to (XDG_CACHE_HOME)",
            CorankWarning,
            stacklevel=3,
        )
        return None
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    shape, tables = (size, size, number, number, number), (pointer,) * 4
    library.corank_adaptive_write.argtypes = (pointer, *shape, *tables, pointer, size)
    library.corank_adaptive_write.restype = size
    library.corank_adaptive_read.argtypes = (pointer, size, *shape, *tables, pointer)
    library.corank_adaptive_read.restype = number
    return library
