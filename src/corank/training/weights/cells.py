"""Float weights that round to given codes: where training from codes starts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from corank.codecs import ScalarCodebook

__all__ = ["into_cells", "with_scale"]

_MARGIN = 0.02  # of a cell's width, that a weight stays away from its ends
_HALVINGS = 40
_FARTHEST = 4.0  # times the outermost level


def _of_levels(book: ScalarCodebook, level: Tensor) -> Tensor:
    columns = level.shape[1]
    return book.spread(book.scale, columns) * (level - book.spread(book.offset, columns))


def _cells(book: ScalarCodebook, codes: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of each code's cell in units of a level, a margin inside; outermost cells have none outward."""
    levels = book.levels
    middles = book.middles
    low = torch.cat([levels.new_full((1,), -torch.inf), middles])
    high = torch.cat([middles, levels.new_full((1,), torch.inf)])
    inner = (high - low)[torch.isfinite(high - low)]
    width = (high - low).where(torch.isfinite(high - low), inner.amin() if len(inner) else (levels[-1] - levels[0]))
    index = codes.long()
    return (low + _MARGIN * width)[index], (high - _MARGIN * width)[index]


def into_cells(book: ScalarCodebook, codes: Tensor, weight: Tensor) -> Tensor:
    """The weight ``(R, C)`` closest to ``weight``, less a margin, that ``book`` rounds to ``codes``."""
    low, high = _cells(book, codes)
    return _of_levels(book, book.in_levels(weight).clamp(low, high))


def with_scale(book: ScalarCodebook, codes: Tensor, weight: Tensor, scale_of: Callable[[Tensor], Tensor]) -> Tensor:
    """The same where the scale is a statistic of the weight: one that rounds to ``codes`` and has ``book``'s scale.

    Magnitudes move inside their cells, all of a row by one share of their way, found by bisection.

    Args:
        book: with levels that mirror about zero, no offsets and one scale a row, or one in all.
        codes: ``(R, C)``.
        weight: ``(R, C)``; where it is already right it stays.
        scale_of: the scale, in ``book.scale``'s shape, of a weight; it grows with the magnitudes.

    Returns:
        That weight. Rows whose cells leave no room for the scale come as close as they can.
    """
    low, high = _cells(book, codes)
    level = book.in_levels(weight).clamp(low, high)
    positive = low >= 0
    outward = torch.where(positive, high, low).clamp(-_FARTHEST * book.levels[-1].abs(), _FARTHEST * book.levels[-1])
    inward = torch.where(positive, low, high)
    across = (low < 0) & (high > 0)  # the cell of zero: inward is zero, outward its end on the weight's side
    inward = torch.where(across, torch.zeros_like(level), inward)
    outward = torch.where(across, torch.where(level < 0, low, high), outward)

    def moved(share: Tensor) -> Tensor:
        share = share.expand(level.shape[0], 1) if book.scale.shape[0] == 1 else share
        way = torch.where(share < 0, level + (level - inward) * share, level + (outward - level) * share)
        return _of_levels(book, way)

    below, above = torch.full_like(book.scale[:, :1], -1.0), torch.full_like(book.scale[:, :1], 1.0)
    wanted = book.scale[:, :1]
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        small = scale_of(moved(middle))[:, :1] < wanted
        below, above = torch.where(small, middle, below), torch.where(small, above, middle)
    return moved(above)
