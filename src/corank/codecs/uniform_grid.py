"""The finest grid of so many values (UQ of arXiv 2108.12704)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from corank.codecs.clusters import SortedSets, grid
from corank.codecs.fitted import FittedLevels, check_fitted

__all__ = ["UniformGrid"]


@dataclass(frozen=True)
class UniformGrid(FittedLevels):
    """Whole multiples of a step, those that occur; the step is the least with at most ``2 ** bits`` of them.

    Nothing is clipped, and multiples that no weight rounds to take no code. The authors try steps of 0.0001, 0.0006,
    ... in units of the weights, this in units of the largest magnitude.

    Args:
        bits: 2 to 8.
        per: what has levels of its own: "row", "layer" or "network".
        scaled: levels are in units of each row's root mean square; not with ``per="row"``.
        zero: zero is a level, even where no weight is near it.
    """

    bits: int = 4
    per: str = "layer"
    scaled: bool = True
    zero: bool = False

    def __post_init__(self) -> None:
        # A grid needs three multiples, -1, 0 and 1, whatever the step: 2 bits, less one level for zero, are the fewest.
        check_fitted(self, least=2)

    def find(self, sets: SortedSets, count: int) -> tuple[Tensor, Tensor | None]:
        return grid(sets, count), None
