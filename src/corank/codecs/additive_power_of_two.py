"""Additive powers of two (APoT, arXiv 1909.13144), 2 to 7 bits."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from corank.codecs.scaled import ScaledLevels, check_fields

__all__ = ["AdditivePowerOfTwo"]

# Bits of the magnitude to its terms; a term is zero or 2^-e for one of its e. As in the authors' code; 1 bit is ours.
_TERMS = {
    1: ((0,),),
    2: ((1, 2, 3),),
    3: ((1, 2, 4), (3,)),
    4: ((1, 3, 5), (2, 4, 6)),
    5: ((1, 3, 6), (2, 4, 7), (5,)),
    6: ((1, 4, 7), (2, 5, 8), (3, 6, 9)),
}


@dataclass(frozen=True)
class AdditivePowerOfTwo(ScaledLevels):
    """Sums of one to three powers of two: nearly as cheap as :class:`PowerOfTwo`, and denser at the ends.

    The magnitude's ``bits - 1`` bits choose one power of two, or none, for each term (two bits a term, the last of an
    odd number one bit); the sums are scaled so that the largest is 1. The paper normalizes weights by their mean and
    deviation and learns the scale; here the scale of each row is that of least squared error. ``2 ** bits - 1`` values.

    Args:
        bits: 2 to 7; at 2 and 3 the levels are those of :class:`PowerOfTwo`.
        group: columns that share a scale; 0 for one scale a row (output channel), -1 for one a weight.
        power_of_two_scale: scales are powers of two (6 bits each).
    """

    bits: int = 4
    group: int = 0
    power_of_two_scale: bool = False

    def __post_init__(self) -> None:
        check_fields(self, range(2, 8), self.group, self.power_of_two_scale)

    def levels(self) -> Tensor:
        terms = [[0.0, *(2.0**-exponent for exponent in term)] for term in _TERMS[self.bits - 1]]
        # No exponent stands in two terms, so sums differ as binary numbers do: no two codes have one value.
        sums = torch.tensor(sorted(sum(chosen) for chosen in itertools.product(*terms)), dtype=torch.float32)
        positive = sums[1:] / sums[-1]
        # The first sum, zero, has no sign: kept once, or the levels would not ascend.
        return torch.cat([-positive.flip(0), torch.zeros_like(positive[:1]), positive])
