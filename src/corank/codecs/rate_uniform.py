"""Equal steps for a whole weight, as wide as an entropy coder needs to keep to a rate: 2 to 8 bits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from corank.codecs.base import SMALLEST_SCALE, as_stored
from corank.codecs.rated import RatedLevels, check_rate
from corank.codecs.scaled import check_fields

__all__ = ["RateUniform"]

_HALVINGS, _NARROWER = 16, 0.75
_LOOKED_AT = 1 << 20  # weights, evenly spaced, when there are more
_WIDER = [2.0 ** (step / 8) for step in range(1, 97)]  # up to one that cuts nothing off


@dataclass(frozen=True)
class RateUniform(RatedLevels):
    """``value = step * k`` with whole ``k`` and one step a weight; the codes' entropy is at most ``rate`` bits.

    Codes are ``bits`` wide, so that rare large ``k`` exist, and cost little: an entropy coder stores them in about
    ``rate`` bits a weight. At high rates equal steps before an entropy coder are within 0.25 bits of the best there is
    (Gish and Pierce, 1968), and rows of small weights take fewer bits by themselves. The step is the one of least
    squared error, of weights rounded to nearest, among those that keep to the rate.

    Args:
        bits: of a code before it is coded, 2 to 8.
        rate: bits a weight after, 0.1 to 8; 0 for two less than ``bits``, but at least 1.
        group: columns that share a step; -1 for one step a weight, 0 for one a row, each fitted to the rate.
    """

    bits: int = 4
    rate: float = 0.0
    group: int = -1

    def __post_init__(self) -> None:
        check_fields(self, range(2, 9), self.group)
        check_rate(self, "two less than the codes have")

    @classmethod
    def of(cls, rate: float) -> RateUniform:
        return cls(min(8, max(3, math.ceil(rate) + 2)), rate)

    def at_rate(self, rate: float) -> RateUniform:
        return replace(self, bits=self.of(rate).bits, rate=rate)

    @property
    def most(self) -> float:
        return self.rate or max(1, self.bits - 2)

    @property
    def largest_rate(self) -> float:
        return self.bits - 0.5

    def fit_scale(self, rows: Tensor) -> Tensor:
        return torch.cat([self._step(row[:: -(-len(row) // _LOOKED_AT)]) for row in rows])[:, None]

    def _step(self, weights: Tensor) -> Tensor:
        """``(1,)``."""
        end = 2 ** (self.bits - 1) - 1
        ascending = _ascending(weights)
        covers = torch.maximum(-ascending[0], ascending[-1]) / end
        high = covers * 4 * end  # so wide that all are zero
        if float(high) <= SMALLEST_SCALE:  # they are at every step that fp16 holds
            return as_stored(high[None])
        # Where one code gives way to the next, in steps.
        between = torch.arange(0.5 - end, end, dtype=torch.float64, device=weights.device)

        def keeps(step: Tensor) -> bool:
            return _entropy_bits(ascending, (between * step).float()) <= self.most

        # Steps are searched in ratios: the rate, some -log2(step) and a constant, moves alike at every magnitude.
        low, least = high * _NARROWER, max(float(covers) / 1024, SMALLEST_SCALE)
        # From wide to narrow: far below, where all are cut off at the ends, the entropy falls again.
        while float(low) > least and keeps(low):
            low, high = low * _NARROWER, low
        for _ in range(_HALVINGS):
            middle = (low * high).sqrt()
            low, high = (low, middle) if keeps(middle) else (middle, high)
        # The narrowest step need not err least: weights beyond its last code are cut off, by a wider one fewer of them.
        steps = [as_stored(high), *(as_stored(high * ratio) for ratio in _WIDER if high * ratio <= covers)]
        if len(steps) == 1:
            return steps[0][None]
        errors = [
            float(((weights / step).round_().clamp_(-end, end) * step - weights).square().sum()) for step in steps
        ]
        return steps[errors.index(min(errors))][None]


def _ascending(weights: Tensor) -> Tensor:
    """The weights sorted: how many each code gets at a step is then a few look-ups, and no pass over all of them."""
    if weights.device.type != "cpu":
        return weights.sort().values
    return torch.from_numpy(np.sort(weights.numpy()))  # many times as fast as torch's


def _entropy_bits(ascending: Tensor, between: Tensor) -> float:
    """Entropy in bits of the codes of sorted weights, between each two of which ``between`` has a threshold."""
    below = torch.searchsorted(ascending, between)
    ends = below.new_zeros(1), below.new_full((1,), len(ascending))
    found = torch.cat([ends[0], below, ends[1]]).diff()
    share = found[found > 0].float() / len(ascending)  # only codes that occur: 0 log2 0 is 0, in floats NaN
    return float(-(share * share.log2()).sum())
