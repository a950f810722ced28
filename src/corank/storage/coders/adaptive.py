"""Codes one by one, by contexts that adapt after every decision; the grids of a trellis are among the contexts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from corank.errors import ArtifactError
from corank.kernels.adaptive import Layout, read, write
from corank.kernels.trellis import MACHINES, visited_states
from corank.storage.coders.base import SymbolCoder
from corank.storage.coders.range_ans import PLACES, best_places, signed_distances

__all__ = ["Adaptive", "behind_head", "trellises", "with_head"]

_STATES = (0, *MACHINES)


@dataclass(frozen=True)
class Adaptive(SymbolCoder):
    """Few bytes, and paths of a trellis (:class:`~corank.codecs.Trellis`) by their grids.

    A row is seen as channels of ``k`` places each (9 of a 3 x 3 kernel). Of every symbol it is coded whether it is the
    most frequent one, else on which side of that, else how far. Chances of each decision come from several contexts,
    mixed by weights that learn (Mahoney 2005): what stands around the code in its kernel, above it in its column, how
    large codes of its row, column and channel are so far; and they adapt after every decision, as those of CABAC and
    of NNC (ISO/IEC 15938-17) do. Where the codes of all columns are paths of a trellis, the place in the state's grid
    is coded, and the state is a context. Nothing of it is stored.

    Bytes: 16 times the place of ``k`` in a list, plus that of the machine (1); the most frequent symbol (1, above 256
    levels 2), but for a trellis; an arithmetic code.
    """

    @staticmethod
    def knows_path(symbols: Tensor, levels: int) -> bool:
        """Whether the columns of symbols ``(R, C)`` are paths of a trellis, more than zeros alone."""
        values = symbols.numpy()
        return bool((values != levels // 2 - 1).any()) and any(trellises(values, levels))

    def _encode(self, values: np.ndarray, levels: int) -> bytes:
        machines = trellises(values, levels)
        return min((with_head(values, levels, machine, write) for machine in machines), key=len)

    def _decode(self, data: bytes, shape: tuple[int, int], levels: int) -> np.ndarray:
        return behind_head(data, shape, levels, read)


def with_head(values: np.ndarray, levels: int, machine: int, write: Callable[[np.ndarray, Layout], bytes]) -> bytes:
    """The head that says how symbols ``(R, C)`` are seen, and what ``write`` makes of them as signed numbers.

    Args:
        machine: whose path the columns are, by its place in the list; 0 for none.
    """
    zero = levels // 2 - 1 if machine else int(np.bincount(values.reshape(-1), minlength=levels).argmax())
    # A path is what it is around its own zero: no distance of it goes the other way around.
    signed = values.astype(np.int32) - zero if machine else signed_distances(values, zero, levels)
    places = best_places(signed)
    head = bytes([16 * PLACES.index(places) + machine])
    head += b"" if machine else zero.to_bytes(1 if levels <= 256 else 2, "little")
    return head + write(signed, Layout(places, levels // 2, _STATES[machine]))


def behind_head(
    data: bytes, shape: tuple[int, int], levels: int, read: Callable[[bytes, tuple[int, int], Layout], np.ndarray]
) -> np.ndarray:
    """The symbols of :func:`with_head`, by the inverse of its ``write``.

    Raises:
        ArtifactError: for bytes that no symbols gave.
    """
    if not data or data[0] >> 4 >= len(PLACES) or data[0] & 15 >= len(_STATES):
        raise ArtifactError("the head of a run of codes is cut off or not sound")
    places, machine = PLACES[data[0] >> 4], data[0] & 15
    begin = 1 if machine else 2 if levels <= 256 else 3
    zero = levels // 2 - 1 if machine else int.from_bytes(data[1:begin], "little")
    if shape[1] % places or len(data) < begin or not 0 <= zero < levels:
        raise ArtifactError(f"a run of codes of {places} places in {shape[1]} columns, around {zero}")
    found = read(data[begin:], shape, Layout(places, levels // 2, _STATES[machine])) + zero
    if not machine:
        return found % levels
    if int(found.min()) < 0 or int(found.max()) >= levels:
        raise ArtifactError(f"a coded symbol of {int(found.min())} to {int(found.max())} where {levels} levels are")
    return found


def trellises(values: np.ndarray, levels: int) -> Iterator[int]:
    """0 for none, then those that the codes may be paths of."""
    yield 0
    if levels >= 8:
        distances = values.astype(np.int32) - (levels // 2 - 1)
        for number, states in enumerate(MACHINES, 1):
            if visited_states(distances, states) is not None:
                yield number
