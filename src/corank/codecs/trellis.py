"""Two interleaved grids of equal steps, one of which is a weight's by the codes above it: 1 to 6 bits a weight."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from corank.codecs.base import SMALLEST_SCALE, as_stored
from corank.codecs.rate_uniform import RateUniform
from corank.codecs.rated import RatedLevels, check_rate
from corank.codecs.scalar import ScalarCodebook
from corank.codecs.scaled import check_fields
from corank.errors import ConfigError
from corank.kernels.trellis import MACHINES, Chain, cheapest_path

__all__ = ["Trellis", "TrellisCodebook", "counted", "prices", "settled"]

_LOOKED_AT = 1 << 12  # weights, evenly spaced, when there are more
_NARROWEST, _WIDEST, _HALVINGS = 0.3, 2.0, 8  # steps of the trellis in those of plain rounding
_PASSES = 6
_UNSEEN = 0.1  # times that a multiple counts as seen before it is
_NOISE = 0.3  # squared error of a path, in squared steps
_WIDER = [2.0 ** (step / 4) for step in range(49)]


@dataclass(frozen=True)
class TrellisCodebook(ScalarCodebook):
    """Codes are multiples of the step, of both grids, so that each has its value by itself; what makes them a path of a
    trellis is chosen by the rounder, and told the coder.

    Attributes:
        states: of the machine that a column's codes drive, from the first row on; see
            :data:`~corank.kernels.trellis.MACHINES`.
        price: of a bit, in squared steps.
    """

    states: int = 8
    price: float = 0.25


@dataclass(frozen=True)
class Trellis(RatedLevels):
    """``value = step * k``: even ``k`` in half of the states, odd ``k`` and zero in the others (trellis-coded or
    "dependent" quantization).

    Each column of a weight is a chain: in which state a code is read follows from the codes above it. A grid is half as
    dense as both together, so codes of one take a bit less, while paths of many weights come nearly as close as the
    dense grid would: 0.1 to 0.15 bits a weight are saved at equal error. The rounder
    :class:`~corank.rounding.Dependent` finds paths; codes by any other rounder are read alike, but take more bits. The
    step is the one at which a sample of the weights, on its cheapest path at the codec's price of a bit, takes
    ``rate``.

    Args:
        bits: of a code before it is coded, 4 to 8.
        rate: bits a weight after, 0.1 to 8; 0 for three less than ``bits``, but at least 1.
        states: of the machine: 4 or 8. More are smaller and take longer to find.
        price: of a bit, in squared steps. The higher, the narrower the step: at equal rate the best one is 0.2 to 0.5.
    """

    bits: int = 6
    rate: float = 0.0
    states: int = 8
    price: float = 0.25
    group: ClassVar[int] = -1  # one step a weight  # pyright: ignore[reportIncompatibleVariableOverride]

    def __post_init__(self) -> None:
        check_fields(self, range(4, 9), self.group)
        check_rate(self, "three less than the codes have")
        if self.states not in MACHINES or isinstance(self.states, bool):
            raise ConfigError(f"states={self.states!r}: {' or '.join(map(str, MACHINES))}, e.g. Trellis(states=8)")
        if isinstance(self.price, bool) or not isinstance(self.price, (int, float)) or not 0 <= self.price <= 4:
            raise ConfigError(f"price={self.price!r}: squared steps a bit, 0 to 4, e.g. Trellis(price=0.3)")

    @classmethod
    def of(cls, rate: float) -> Trellis:
        return cls(min(8, max(5, math.ceil(rate) + 4)), rate)

    def at_rate(self, rate: float) -> Trellis:
        return replace(self, bits=self.of(rate).bits, rate=rate)

    @property
    def most(self) -> float:
        return self.rate or max(1, self.bits - 3)

    @property
    def largest_rate(self) -> float:
        return self.bits - 2.5

    def fit_scale(self, rows: Tensor) -> Tensor:
        return torch.cat([self._step(row) for row in rows])[:, None]

    def _step(self, weights: Tensor) -> Tensor:
        """``(1,)``."""
        plain = RateUniform(8, self.most).fit_scale(weights[None])[0]
        if float(plain) <= SMALLEST_SCALE or not bool(weights.any()):
            return plain
        sample = weights[:: -(-len(weights) // _LOOKED_AT)].double().cpu().numpy()
        low, high = float(plain) * _NARROWEST, float(plain) * _WIDEST
        for _ in range(_HALVINGS):
            middle = math.sqrt(low * high)
            bits = settled(sample / middle, self.states, self.price)[1]
            low, high = (low, middle) if bits <= self.most else (middle, high)
        # Weights beyond the last multiple are cut off, by a wider step fewer of them.
        end, sizes = 2 ** (self.bits - 1) - 1, weights.abs()
        steps = [as_stored(torch.full_like(plain, high * ratio)) for ratio in _WIDER]
        lost = [float((sizes - end * step).clamp(min=0).square().mean() + _NOISE * step.square()) for step in steps]
        return steps[lost.index(min(lost))]

    def _codebook(self, scale: Tensor, rows: int, columns: int) -> TrellisCodebook:
        plain = super()._codebook(scale, rows, columns)
        same: dict[str, Any] = {field.name: getattr(plain, field.name) for field in fields(ScalarCodebook)}
        return TrellisCodebook(**same, states=self.states, price=self.price)

    def fit(self, weight: Tensor, gram: Tensor | None = None) -> TrellisCodebook:
        found = super().fit(weight, gram)
        assert isinstance(found, TrellisCodebook)
        return found

    def codebook(self, tensors: Mapping[str, Tensor], rows: int, columns: int) -> TrellisCodebook:
        found = super().codebook(tensors, rows, columns)
        assert isinstance(found, TrellisCodebook)
        return found


def settled(targets: np.ndarray, states: int, price: float, most: int = 127) -> tuple[np.ndarray, float]:
    """How often each grid and multiple stand on the cheapest path of a chain, ``(2, 2 M + 1)``, and its bits a weight.

    Path and chances are found in turn, a few times, from chances that are all alike.

    Args:
        targets: ``(n,)`` float64, in steps.
        states: of the machine.
        price: of a bit, in squared steps.
        most: ``M``.
    """
    chain = Chain(targets, np.ones(len(targets)))
    counts = np.zeros((2, 2 * most + 1))
    bits = np.zeros_like(counts)
    for _ in range(_PASSES):
        values, visited = cheapest_path(chain, price * bits, states)
        counts = counted(values, visited, states, most)
        bits = prices(counts)
    return counts, float((counts * bits).sum() / len(targets))


def counted(values: np.ndarray, visited: np.ndarray, states: int, most: int) -> np.ndarray:
    """How often multiples of any shape occur in each grid, ``(2, 2 M + 1)`` float64."""
    grids = np.array(MACHINES[states].grids)[visited.reshape(-1)]
    size = 2 * most + 1
    return np.bincount(grids * size + values.reshape(-1) + most, minlength=2 * size).reshape(2, size).astype(np.float64)


def prices(counts: np.ndarray) -> np.ndarray:
    """Bits of each multiple in each grid, ``(2, 2 M + 1)``, where they are chosen as often as ``counts`` says."""
    most = counts.shape[1] // 2
    values = np.arange(-most, most + 1)
    own = np.stack([values % 2 == 0, (values % 2 != 0) | (values == 0)])
    seen = np.where(own, counts + _UNSEEN, 1.0)
    total = np.where(own, seen, 0.0).sum(1, keepdims=True)
    return np.where(own, np.log2(total) - np.log2(seen), 0.0)
