"""DenseShift (arXiv 2208.09708): signed powers of two without zero, 2 to 4 bits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corank.codecs.power_of_two import mirrored
from corank.codecs.scaled import ScaledLevels, check_fields

__all__ = ["DenseShift"]


@dataclass(frozen=True)
class DenseShift(ScaledLevels):
    """``value = scale * +-2^-i``, ``i`` from 0 to ``2^(bits-1) - 1``: every code has its own value, none is zero.

    The paper's ``+-1, ..., +-2^(2^(bits-1) - 1)``, counted from the largest. It trains such weights from scratch and
    lets the batch norm take up their scale. A trained network is given scales instead, which is our extension: fixed,
    one for each row, of least squared error.

    Args:
        bits: 2 to 4.
        group: columns that share a scale; 0 for one scale a row (output channel), -1 for one a weight.
        power_of_two_scale: scales are powers of two (6 bits each), so that a product is an addition of exponents.
    """

    bits: int = 3
    group: int = 0
    power_of_two_scale: bool = False

    def __post_init__(self) -> None:
        check_fields(self, range(2, 5), self.group, self.power_of_two_scale)

    def levels(self) -> Tensor:
        # From the largest, 1: a scale is then about a row's largest weight, however many bits there are.
        return mirrored(torch.exp2(torch.arange(1.0 - 2 ** (self.bits - 1), 1.0, dtype=torch.float32)))
