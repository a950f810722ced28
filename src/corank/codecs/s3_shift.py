"""S3 (sign, sparse, shift; arXiv 2107.03453): zero and three signed powers of two in 3 bits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corank.codecs.scaled import ScaledLevels, check_fields

__all__ = ["S3Shift"]


@dataclass(frozen=True)
class S3Shift(ScaledLevels):
    """``value = scale * {0, +-1, +-2, +-4} / 4``: seven values, one code is unused.

    What weights trained as S3 become; given to a trained network these are the values of ``PowerOfTwo(bits=3)``. The
    scale is our extension, as for :class:`DenseShift`.

    Args:
        bits: 3.
        group: columns that share a scale; 0 for one scale a row (output channel), -1 for one a weight.
        power_of_two_scale: scales are powers of two (6 bits each).
    """

    bits: int = 3
    group: int = 0
    power_of_two_scale: bool = False

    def __post_init__(self) -> None:
        check_fields(self, range(3, 4), self.group, self.power_of_two_scale)

    def levels(self) -> Tensor:
        return torch.tensor([-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0], dtype=torch.float32) / 4
