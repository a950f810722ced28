"""Trellis-coded quantization of one chain of weights: which of two interleaved grids a weight may use is decided by the
weights before it, and all paths are compared at once.

Marcellin and Fischer, "Trellis coded quantization of memoryless and Gauss-Markov sources" (1990); grids, parities and
the machines of four and eight states are those of dependent quantization in VVC (ITU-T H.266, 8.7.3) and NNC (ISO/IEC
15938-17). ``n`` weights of a chain, ``S`` states, ``M`` the largest multiple of the step.
"""

from __future__ import annotations

import ctypes
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from corank.errors import CorankWarning
from corank.kernels.build import NotBuiltError, built

__all__ = ["MACHINES", "Chain", "Machine", "cheapest_path", "places_in_grid", "tables", "visited_states"]

_FIRST = ((0, 2), (3, 1))  # the least magnitude of each grid and parity


@dataclass(frozen=True)
class Machine:
    """The states that a chain goes through, from state 0 on.

    Attributes:
        leads: ``(S, 2)``, where an even and an odd place in the grid lead.
        grids: ``(S,)``, which grid a state reads: 0 has even multiples of the step, 1 odd ones and zero.
    """

    leads: tuple[tuple[int, int], ...]
    grids: tuple[int, ...]


MACHINES = {
    4: Machine(((0, 2), (2, 0), (1, 3), (3, 1)), (0, 0, 1, 1)),
    8: Machine(((0, 2), (7, 5), (1, 3), (6, 4), (2, 0), (5, 7), (3, 1), (4, 6)), (0, 1, 0, 1, 0, 1, 0, 1)),
}
"""By their number of states."""


@dataclass(frozen=True)
class Chain:
    """What a chain is to be like.

    Attributes:
        targets: ``(n,)`` float64, in steps.
        weights: ``(n,)`` float64, of the squared errors.
        zero_only: ``(n,)`` bool, where nothing but zero may be taken; None for nowhere.
    """

    targets: np.ndarray
    weights: np.ndarray
    zero_only: np.ndarray | None = None


def cheapest_path(chain: Chain, price: np.ndarray, states: int) -> tuple[np.ndarray, np.ndarray]:
    """The multiples ``(n,)`` int32 of least ``sum(weight (target - v)^2 + price[grid, v])``, and their states uint8.

    Args:
        chain: what they are to be like.
        price: ``(2, 2 M + 1)`` float64, of multiples ``-M`` to ``M`` in each grid; ``M`` at least 3.
        states: of :data:`MACHINES`.
    """
    library = _library()
    if library is None:
        return _by_numpy(chain, price, MACHINES[states])
    count = len(chain.targets)
    targets = np.ascontiguousarray(chain.targets, np.float64)
    weights, prices = np.ascontiguousarray(chain.weights, np.float64), np.ascontiguousarray(price, np.float64)
    zero_only = None if chain.zero_only is None else np.ascontiguousarray(chain.zero_only, np.uint8)
    leads, grids = tables(states)
    values, visited = np.empty(count, np.int32), np.empty(count, np.uint8)
    library.corank_trellis(
        targets.ctypes.data,
        weights.ctypes.data,
        None if zero_only is None else zero_only.ctypes.data,
        count,
        prices.ctypes.data,
        prices.shape[1] // 2,
        leads.ctypes.data,
        grids.ctypes.data,
        states,
        values.ctypes.data,
        visited.ctypes.data,
    )
    return values, visited


@cache
def tables(states: int) -> tuple[np.ndarray, np.ndarray]:
    """The machine's ``leads`` and ``grids`` as int32, for kernels."""
    return np.array(MACHINES[states].leads, np.int32), np.array(MACHINES[states].grids, np.int32)


def visited_states(values: np.ndarray, states: int) -> np.ndarray | None:
    """The state ``(R, C)`` uint8 in which each multiple ``(R, C)`` is read, every column a chain of its own; None where
    a multiple is not of the grid that its state reads."""
    machine = MACHINES[states]
    leads, grids = np.array(machine.leads, np.uint8), np.array(machine.grids, np.uint8)
    found = np.empty(values.shape, np.uint8)
    state = np.zeros(values.shape[1], np.uint8)
    for row, into in zip(values, found, strict=True):
        into[:] = state
        grid = grids[state]
        if bool(((row & 1 != grid) & (row != 0)).any()):
            return None
        state = leads[state, places_in_grid(row, grid) & 1]
    return found


def places_in_grid(values: np.ndarray, grids: np.ndarray) -> np.ndarray:
    """Places of multiples in their grids: ``v / 2`` in grid 0, ``sign(v) (|v| + 1) / 2`` in grid 1."""
    return np.where(grids == 0, values >> 1, np.sign(values) * ((np.abs(values) + 1) >> 1))


def _by_numpy(chain: Chain, price: np.ndarray, machine: Machine) -> tuple[np.ndarray, np.ndarray]:
    """The same numbers as the kernel's, operation by operation."""
    count, states = len(chain.targets), len(machine.grids)
    costs, picks = _sets(chain, price)
    cost = np.full(states, np.inf)
    cost[0] = 0
    came, took = np.zeros((count, states), np.int64), np.zeros((count, states), np.int32)
    # Of each state the two edges that lead to it, in the kernel's order: the first wins a tie.
    edges = [(state, parity) for state in range(states) for parity in range(2)]
    into = np.array([[edge for edge in edges if machine.leads[edge[0]][edge[1]] == to] for to in range(states)])
    before, grid_of, parity_of = into[:, :, 0], np.array(machine.grids)[into[:, :, 0]], into[:, :, 1]
    each = np.arange(states)
    for at in range(count):
        total = cost[before] + costs[at][grid_of, parity_of]
        best = total.argmin(1)
        cost, came[at] = total[each, best], before[each, best]
        took[at] = picks[at][grid_of[each, best], parity_of[each, best]]
    values, visited, state = np.empty(count, np.int32), np.empty(count, np.uint8), int(cost.argmin())
    for at in range(count - 1, -1, -1):
        values[at] = took[at, state]
        state = visited[at] = came[at, state]
    return values, visited


def _sets(chain: Chain, price: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least cost ``(n, 2, 2)`` of each grid and parity, and the multiple that has it."""
    most, targets = price.shape[1] // 2, chain.targets
    size, sign = np.abs(targets), np.where(targets < 0, -1, 1)
    costs, picks = np.full((len(targets), 2, 2), np.inf), np.zeros((len(targets), 2, 2), np.int32)
    for grid in (0, 1):
        for parity in (0, 1):
            first = _FIRST[grid][parity]
            last = first + (most - first) // 4 * 4
            below = first + ((np.minimum(np.maximum(size, first), last) - first) / 4).astype(np.int64) * 4
            tried = [(below, True), (below + 4, below + 4 <= last), (0 * below, below != 0)]
            if chain.zero_only is not None:
                tried = [(value, allowed & ~chain.zero_only) for value, allowed in tried[:2]] + [(0 * below, True)]
            for value, allowed in tried if parity == 0 else tried[:2]:
                multiple = np.where(allowed, sign * value, 0)
                error = targets - multiple
                cost = chain.weights * (error * error) + price[grid][multiple + most]
                better = allowed & (cost < costs[:, grid, parity])
                costs[better, grid, parity], picks[better, grid, parity] = cost[better], multiple[better]
    return costs, picks


@cache
def _library() -> ctypes.CDLL | None:
    """The kernel; None, said once, where it cannot be had."""
    try:
        library = built(Path(__file__).with_name("trellis.cpp"))
    except NotBuiltError as error:
        warnings.warn(
            f"trellises go without their kernel: {error}; numpy gives the same codes, a hundred times slower. The "
            "kernel needs g++ or clang++, and a cache folder that can be written to (XDG_CACHE_HOME)",
            CorankWarning,
            stacklevel=3,
        )
        return None
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.corank_trellis.argtypes = (
        *(pointer, pointer, pointer, size, pointer, number),
        *(pointer, pointer, number, pointer, pointer),
    )
    library.corank_trellis.restype = ctypes.c_double
    return library
