"""What both ways of :mod:`corank.kernels.adaptive` rest on: how a matrix is looked at, and two tables."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["CHANCES", "FARTHEST", "LOGARITHMS", "MOST_COUNTED", "Layout"]

MOST_COUNTED, FARTHEST, _UNIT = 1023, 3071, 256  # odds of e^12 are the farthest

# The only floats: rounded to whole numbers far from where two machines could differ.
LOGARITHMS = tuple(round(_UNIT * math.log(count + 0.4)) for count in range(MOST_COUNTED + 2))
"""Of a count, and a bit more."""
CHANCES = tuple(min(65535, max(1, round(65536 / (1 + math.exp(-x / _UNIT))))) for x in range(-FARTHEST, FARTHEST + 1))
"""Of yes, of 65536, by odds from ``-FARTHEST`` to ``FARTHEST``."""


@dataclass(frozen=True)
class Layout:
    """How a matrix is looked at.

    Attributes:
        places: columns of a channel, which divide the columns.
        half: the most that a number may be away from zero (in its grid, where there is a trellis).
        states: of the machine whose paths the columns are; 0 for none.
    """

    places: int
    half: int
    states: int = 0
