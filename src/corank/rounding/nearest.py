"""Rounding to the nearest value."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from corank.codecs import Codebook
from corank.rounding.base import Rounder
from corank.statistics import LayerStatistics

__all__ = ["Nearest"]


@dataclass(frozen=True)
class Nearest(Rounder):
    """Each weight takes the closest value of its codebook; needs no data."""

    def __call__(self, weight: Tensor, codebook: Codebook, statistics: LayerStatistics) -> Tensor:
        return codebook.nearest(weight)
