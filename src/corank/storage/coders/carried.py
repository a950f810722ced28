"""Codes one by one, by contexts that adapt; what one matrix teaches, the next of the same file begins with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from corank.kernels.carried import LearnedCodes
from corank.storage.coders.adaptive import behind_head, trellises, with_head
from corank.storage.coders.base import SymbolCoder

__all__ = ["Carried"]


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
        values = behind_head(data, shape, levels, learned.read)
        return torch.from_numpy(values.astype(np.uint8 if levels <= 256 else np.int32))

    def _encode(self, values: np.ndarray, levels: int) -> bytes:
        return self._written(LearnedCodes(), values, levels)

    def _decode(self, data: bytes, shape: tuple[int, int], levels: int) -> np.ndarray:
        return behind_head(data, shape, levels, LearnedCodes().read)

    def _written(self, learned: LearnedCodes, values: np.ndarray, levels: int) -> bytes:
        # A path of a machine is always better told its grids.
        machine = max(trellises(values, levels)) if (values != levels // 2 - 1).any() else 0
        return with_head(values, levels, machine, learned.write)
