"""Levels at quantiles of the weights (the representatives of PWS, arXiv 2108.12704)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from corank.codecs.clusters import SortedSets, quantiles
from corank.codecs.fitted import FittedLevels, check_fitted

__all__ = ["Quantiles"]


@dataclass(frozen=True)
class Quantiles(FittedLevels):
    """``2 ** bits`` levels of equal steps in rank, the least and the largest weight among them.

    With the rounder :class:`~corank.rounding.Stochastic` this is probabilistic weight sharing: each weight goes to one
    of its two neighbours so that its expectation is itself.

    Args:
        bits: 1 to 8.
        per: what has levels of its own: "row", "layer" or "network".
        scaled: levels are in units of each row's root mean square; not with ``per="row"``.
        zero: zero is a level, the others are for the weights that are not zero.
    """

    bits: int = 4
    per: str = "layer"
    scaled: bool = True
    zero: bool = False

    def __post_init__(self) -> None:
        check_fitted(self)

    def find(self, sets: SortedSets, count: int) -> tuple[Tensor, Tensor | None]:
        # Midway is as good as any threshold: Stochastic draws between the two neighbours and looks at none.
        return quantiles(sets, count), None
