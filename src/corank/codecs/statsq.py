"""StatsQ of OFQ (arXiv 2302.02210): a symmetric grid without zero, its scale from the mean magnitude."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corank.codecs.base import as_stored
from corank.codecs.scaled import ScaledLevels, check_fields

__all__ = ["StatsQ"]


@dataclass(frozen=True)
class StatsQ(ScaledLevels):
    """``value = scale * (k + 1/2) / 2^(bits-1)``, ``k`` from ``-2^(bits-1)`` to ``2^(bits-1) - 1``; no search.

    The scale of a row is twice its mean magnitude, so that weights beyond it are clipped: ``s (round(clip(w / s, -1,
    1 - 1e-6) n - 1/2) + 1/2) / n`` with ``n = 2^(bits-1)``.

    Args:
        bits: 2 to 8.
        group: columns that share a scale; 0 for one scale a row (output channel), -1 for one a weight.
    """

    bits: int = 4
    group: int = 0

    def __post_init__(self) -> None:
        check_fields(self, range(2, 9), self.group)

    def levels(self) -> Tensor:
        half = 2.0 ** (self.bits - 1)
        return (torch.arange(-half, half, dtype=torch.float32) + 0.5) / half

    def fit_scale(self, rows: Tensor) -> Tensor:
        return as_stored(2 * rows.abs().mean(1, keepdim=True))
