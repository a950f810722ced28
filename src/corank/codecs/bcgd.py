"""The levels of blended coarse gradient descent (BCGD, arXiv 1808.05240), 1 to 8 bits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corank.codecs.base import as_stored
from corank.codecs.scaled import ScaledLevels, check_fields
from corank.codecs.ternary import survivors_mean

__all__ = ["Bcgd"]


@dataclass(frozen=True)
class Bcgd(ScaledLevels):
    """``value = scale * k``, ``k`` from ``-(2^(bits-1) - 1)`` to ``2^(bits-1) - 1`` (at 1 bit: -1 and 1); no search.

    The scale is the mean magnitude at 1 bit and that of :class:`Ternary`'s "twn" at 2. From 3 bits on, with ``delta =
    max|w| / (2^bits - 1)``, the k are the whole numbers closest to ``w / (2 delta)`` (ties towards zero), and the scale
    is then ``sum(|w| k) / sum(k^2)``. The paper has 1, 2 and 4 bits and one scale a weight; other widths follow the
    rule of 4. Its training comes on top of these levels.

    Args:
        bits: 1 to 8.
        group: columns that share a scale; -1 for one a weight, 0 for one a row.
    """

    bits: int = 4
    group: int = -1

    def __post_init__(self) -> None:
        check_fields(self, range(1, 9), self.group)

    def levels(self) -> Tensor:
        if self.bits == 1:
            return torch.tensor([-1.0, 1.0], dtype=torch.float32)
        most = 2 ** (self.bits - 1) - 1
        return torch.arange(-float(most), most + 1, dtype=torch.float32)

    def fit_scale(self, rows: Tensor) -> Tensor:
        size, most = rows.abs(), 2 ** (self.bits - 1) - 1
        if self.bits == 1:
            return as_stored(size.mean(1, keepdim=True))
        if self.bits == 2:
            return as_stored(survivors_mean(rows))
        delta = size.amax(1, keepdim=True).clamp(min=1e-30) / (2**self.bits - 1)
        whole = (size / (2 * delta) - 0.5).ceil().clamp(0, most)
        return as_stored((size * whole).sum(1, keepdim=True) / whole.square().sum(1, keepdim=True).clamp(min=1))
