"""Whole numbers as an arithmetic code whose chances adapt after every decision: one at a time, so in C++.

``R`` rows, ``C`` columns. All is computed in whole numbers, so that reader and writer come to the same chances on every
machine, with the kernel or without.
"""

from __future__ import annotations

import ctypes
import warnings
from functools import cache
from pathlib import Path

import numpy as np

from corank.errors import ArtifactError, CorankWarning
from corank.kernels.adaptive_tables import CHANCES, LOGARITHMS, Layout
from corank.kernels.adaptive_walk import ArithmeticReader, ArithmeticWriter, Walk
from corank.kernels.build import NotBuiltError, built
from corank.kernels.trellis import MACHINES, tables

__all__ = ["FAULTS", "Layout", "has_kernel", "kernel", "layout_tables", "read", "write"]

FAULTS = {1: "a coded number is more than {half} from zero", 2: "an arithmetic code does not end where it should"}


def has_kernel() -> bool:
    """Whether it goes fast."""
    return kernel() is not None


def write(values: np.ndarray, layout: Layout) -> bytes:
    """The bytes of whole numbers ``(R, C)`` from ``-half`` to ``half``."""
    library = kernel()
    if library is None:
        writer = ArithmeticWriter()
        Walk(layout, writer).go((values.shape[0], values.shape[1]), values.reshape(-1).tolist())
        return writer.closed()
    numbers = np.ascontiguousarray(values, np.int32)
    given = layout_tables(layout.states)
    size, out = numbers.size // 2 + 64, np.empty(0, np.uint8)
    while size > out.size:
        out = np.empty(size, np.uint8)
        size = library.corank_adaptive_write(
            numbers.ctypes.data, *numbers.shape, layout.places, layout.half, layout.states,
            *(table.ctypes.data for table in given), out.ctypes.data, out.size,
        )  # fmt: skip
    return out[:size].tobytes()


def read(data: bytes, shape: tuple[int, int], layout: Layout) -> np.ndarray:
    """The numbers ``(R, C)`` int32 that :func:`write` was given.

    Raises:
        ArtifactError: for bytes that are not those of such numbers.
    """
    library = kernel()
    if library is None:
        return _read_by_python(data, shape, layout)
    values = np.empty(shape, np.int32)
    given = np.frombuffer(data, np.uint8) if data else np.zeros(1, np.uint8)
    fault = library.corank_adaptive_read(
        given.ctypes.data, len(data), *shape, layout.places, layout.half, layout.states,
        *(table.ctypes.data for table in layout_tables(layout.states)), values.ctypes.data,
    )  # fmt: skip
    if fault:
        raise ArtifactError(FAULTS[fault].format(half=layout.half))
    return values


def _read_by_python(data: bytes, shape: tuple[int, int], layout: Layout) -> np.ndarray:
    reader = ArithmeticReader(data)
    found = Walk(layout, reader).go(shape, None)
    fault = 1 if found is None else 0 if reader.ended else 2
    if found is None or fault:
        raise ArtifactError(FAULTS[fault].format(half=layout.half))
    return np.array(found, np.int32).reshape(shape)


@cache
def layout_tables(states: int) -> tuple[np.ndarray, ...]:
    return (
        np.array(LOGARITHMS, np.int32),
        np.array(CHANCES, np.int32),
        *tables(states or min(MACHINES)),
    )  # of no machine nothing is read


@cache
def kernel() -> ctypes.CDLL | None:
    """The kernel; None, said once, where it cannot be had."""
    try:
        library = built(Path(__file__).with_name("adaptive.cpp"))
    except NotBuiltError as error:
        warnings.warn(
            f"adaptive codes are read and written without their kernel: {error}; Python gives the same, a hundred "
            "times slower. The kernel needs g++ or clang++, and a cache folder that can be written to (XDG_CACHE_HOME)",
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
    library.corank_carried_new.argtypes, library.corank_carried_new.restype = (pointer,), pointer
    library.corank_carried_copy.argtypes, library.corank_carried_copy.restype = (pointer,), pointer
    library.corank_carried_free.argtypes, library.corank_carried_free.restype = (pointer,), None
    library.corank_carried_take.argtypes, library.corank_carried_take.restype = (pointer, pointer), None
    library.corank_carried_write.argtypes = (pointer, pointer, *shape, *tables)
    library.corank_carried_write.restype = size
    library.corank_carried_read.argtypes = (pointer, pointer, size, *shape, *tables, pointer)
    library.corank_carried_read.restype = number
    return library
