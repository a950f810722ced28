"""Matrices of whole numbers one after the other as adaptive codes: what one teaches, the next begins with.

The numbers themselves are coded as :mod:`corank.kernels.adaptive` does, by more contexts; ``R`` rows, ``C`` columns.
"""

from __future__ import annotations

import copy
import ctypes
import weakref

import numpy as np

from corank.errors import ArtifactError
from corank.kernels.adaptive import FAULTS, kernel, layout_tables
from corank.kernels.adaptive_tables import Layout
from corank.kernels.adaptive_walk import ArithmeticReader, ArithmeticWriter
from corank.kernels.carried_walk import CarriedWalk, Learned

__all__ = ["LearnedCodes"]


class LearnedCodes:
    """What was learned so far: of a kernel, a handle of it; without one, in Python. Both come to the same bytes."""

    def __init__(self) -> None:
        self._library = kernel()
        self._by_python = Learned() if self._library is None else None
        if self._library is not None:
            self._hold(self._library.corank_carried_new(layout_tables(0)[1].ctypes.data))

    def copy(self) -> LearnedCodes:
        """The same, to go on with apart."""
        made = LearnedCodes.__new__(LearnedCodes)
        made._library, made._by_python = self._library, copy.deepcopy(self._by_python)
        if made._library is not None:
            made._hold(made._library.corank_carried_copy(self._learned))
        return made

    def _hold(self, learned: int) -> None:
        assert self._library is not None
        self._learned = ctypes.c_void_p(learned)
        weakref.finalize(self, self._library.corank_carried_free, self._learned)

    def write(self, values: np.ndarray, layout: Layout) -> bytes:
        """The bytes of whole numbers ``(R, C)`` from ``-half`` to ``half``; they are learned from."""
        if self._by_python is not None:
            writer = ArithmeticWriter()
            walk = CarriedWalk(self._by_python, layout, writer)
            walk.go((values.shape[0], values.shape[1]), values.reshape(-1).tolist())
            return writer.closed()
        assert self._library is not None
        numbers, tables = np.ascontiguousarray(values, np.int32), layout_tables(layout.states)
        size = self._library.corank_carried_write(
            self._learned, numbers.ctypes.data, *numbers.shape, layout.places, layout.half, layout.states,
            *(table.ctypes.data for table in tables),
        )  # fmt: skip
        out = np.empty(size, np.uint8)
        self._library.corank_carried_take(self._learned, out.ctypes.data)
        return out.tobytes()

    def read(self, data: bytes, shape: tuple[int, int], layout: Layout) -> np.ndarray:
        """The numbers ``(R, C)`` int32 that :meth:`write` was given, having learned the same before.

        Raises:
            ArtifactError: for bytes that are not those of such numbers.
        """
        if self._by_python is not None:
            reader = ArithmeticReader(data)
            found = CarriedWalk(self._by_python, layout, reader).go(shape, None)
            fault = 1 if found is None else 0 if reader.ended else 2
            values = np.array(found or [0], np.int32)
        else:
            assert self._library is not None
            values, given = np.empty(shape, np.int32), np.frombuffer(data or b"\0", np.uint8)
            tables = layout_tables(layout.states)
            fault = self._library.corank_carried_read(
                self._learned, given.ctypes.data, len(data), *shape, layout.places, layout.half, layout.states,
                *(table.ctypes.data for table in tables), values.ctypes.data,
            )  # fmt: skip
        if fault:
            raise ArtifactError(FAULTS[fault].format(half=layout.half))
        return values.reshape(shape)
