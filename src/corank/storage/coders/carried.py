"""Codes one by one, by contexts that adapt; what one matrix teaches, the next of the same file begins with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from corank.errors import ArtifactError
from corank.kernels.adaptive_tables import Layout
from corank.kernels.carried import LearnedCodes
from corank.kernels.trellis import MACHINES
from corank.storage.coders.adaptive import trellises
from corank.storage.coders.base import SymbolCoder
from corank.storage.coders.range_ans import PLACES, best_places, signed_distances

__all__ = ["Carried"]

_STATES = (0, *MACHINES)


@dataclass(frozen=True)
class Carried(SymbolCoder):
    """The smallest there is: as :class:`~corank.storage.coders.Adaptive`, by more contexts.

    Beside what stands around a code it is told what rows above let expect: each of the 64 before weighs by how much it
    went with this row so far, as if it were correlated with it. In a file the chances of one run of codes are where the
    next begins. Of a matrix alone there is nothing before.

    Bytes: as those of ``Adaptive``, but for the chances.
    """

    def encode_after(self, learned: LearnedCodes, symbols: Tensor, levels: int) -> bytes:
        """The bytes of ``symbols`` (as :meth:`encode`, at least one), after what was learned, which learns on."""
        return self._written(learned, symbols.numpy().astype(np.uint8 if levels <= 256 else np.int64), levels)

    def decode_after(self, learned: LearnedCodes, data: bytes, shape: tuple[int, int], levels: int) -> Tensor:
        """The inverse, as :meth:`decode`; it raises what that raises."""
        values = self._read(learned, data, shape, levels)
        return torch.from_numpy(values.astype(np.uint8 if levels <= 256 else np.int32))

    def _encode(self, values: np.ndarray, levels: int) -> bytes:
        return self._written(LearnedCodes(), values, levels)

    def _decode(self, data: bytes, shape: tuple[int, int], levels: int) -> np.ndarray:
        return self._read(LearnedCodes(), data, shape, levels)

    def _written(self, learned: LearnedCodes, values: np.ndarray, levels: int) -> bytes:
        # A path of a machine is always better told its grids.
        machine = max(trellises(values, levels)) if (values != levels // 2 - 1).any() else 0
        zero = levels // 2 - 1 if machine else int(np.bincount(values.reshape(-1), minlength=levels).argmax())
        signed = values.astype(np.int32) - zero if machine else signed_distances(values, zero, levels)
        places = best_places(signed)
        head = bytes([16 * PLACES.index(places) + machine])
        head += b"" if machine else zero.to_bytes(1 if levels <= 256 else 2, "little")
        return head + learned.write(signed, Layout(places, levels // 2, _STATES[machine]))

    def _read(self, learned: LearnedCodes, data: bytes, shape: tuple[int, int], levels: int) -> np.ndarray:
        if not data or data[0] >> 4 >= len(PLACES) or data[0] & 15 >= len(_STATES):
            raise ArtifactError("the head of a carried code is cut off or not sound")
        places, machine = PLACES[data[0] >> 4], data[0] & 15
        begin = 1 if machine else 2 if levels <= 256 else 3
        zero = levels // 2 - 1 if machine else int.from_bytes(data[1:begin], "little")
        if shape[1] % places or len(data) < begin or not 0 <= zero < levels:
            raise ArtifactError(f"a carried code of {places} places in {shape[1]} columns, around {zero}")
        found = learned.read(data[begin:], shape, Layout(places, levels // 2, _STATES[machine])) + zero
        if machine and (int(found.min()) < 0 or int(found.max()) >= levels):
            raise ArtifactError(f"a coded symbol of {int(found.min())} to {int(found.max())} where {levels} levels are")
        return found if machine else found % levels
