"""Rates of all layers from one rate, where codes are entropy-coded: more bits where they take off more loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from corank.bisection import bisected
from corank.codecs import Codec, RatedLevels
from corank.errors import ConfigError
from corank.progress import Progress, silent
from corank.search.allocation import Allocation
from corank.search.base import Search
from corank.search.problem import AllocationProblem, CodecCandidates
from corank.search.uniform_ranks import UniformRanks

__all__ = ["Rates", "WantedRates"]

_HALVINGS = 60


@dataclass(frozen=True)
class WantedRates:
    """What layers would like to have.

    Attributes:
        rates: by layer, but for a constant that all share.
        weights: how many each has.
        codecs: at the rate that was asked for.
    """

    rates: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, int] = field(default_factory=dict)
    codecs: Mapping[str, RatedLevels] = field(default_factory=dict)

    def joined(self, other: WantedRates) -> WantedRates:
        """Those of both, of layers of one network."""
        return WantedRates(
            {**self.rates, **other.rates}, {**self.weights, **other.weights}, {**self.codecs, **other.codecs}
        )


@dataclass(frozen=True)
class Rates(Search):
    """Gives each layer of :class:`~corank.codecs.RatedLevels` codecs a rate of its own; the mean over weights stays.

    A layer's loss falls by the factor 4 with each bit, so the mean rate is spent best where all layers lose equally
    much a weight (reverse water-filling): ``rate_l = rate + log2(lost_l / weights_l) / 2 + constant``. What a layer
    loses at ``rate`` is estimated as its fit does, each layer coded by itself (with the quick form of the plan's
    rounder: GPTQ for AdaRound). No gradient step. Ranks are those of
    :class:`UniformRanks`; layers of other codecs keep theirs.

    Args:
        least: rate that every layer keeps.
        spread: 1 for the rule above, 0 for equal rates, between them a part of the way.
    """

    needs_coded_weights: ClassVar[bool] = False
    chooses_codecs: ClassVar[bool] = True

    least: float = 0.5
    spread: float = 1.0

    def __post_init__(self) -> None:
        if not 0.1 <= self.least <= 6:
            raise ConfigError(f"least={self.least!r}: bits a weight, 0.1 to 6, e.g. Rates(least=0.5)")
        if not 0 <= self.spread <= 1:
            raise ConfigError(f"spread={self.spread!r}: 0 (equal rates) to 1")

    def __call__(self, problem: AllocationProblem) -> Allocation:
        known = problem.candidates
        if known is None:
            raise ConfigError("Rates chooses codecs, and this problem has no candidates to choose from")
        codecs = self.shared_out(self.wanted(known, problem.context.progress))
        ranks = UniformRanks()(known.recoded(codecs, problem.budget_bits)).ranks if problem.budget_bits else {}
        return Allocation({name: ranks.get(name, 0) for name in problem.layers}, codecs=codecs)

    def wanted(self, known: CodecCandidates, progress: Progress = silent) -> WantedRates:
        """What each layer would like to have, but for a constant that all of a network share."""
        rated = {name: codec for name, codec in known.codecs.items() if isinstance(codec, RatedLevels)}
        rated = {name: codec for name, codec in rated.items() if name in known.free}
        rates: dict[str, float] = {}
        for number, (name, codec) in enumerate(rated.items()):
            each = max(known.lost(name, codec), 1e-30) / math.prod(known.shapes[name])
            rates[name] = codec.most + self.spread * math.log2(each) / 2
            progress("measuring what every layer loses", number + 1, len(rated))
        return WantedRates(rates, {name: math.prod(known.shapes[name]) for name in rated}, rated)

    def shared_out(self, found: WantedRates) -> dict[str, Codec]:
        """The codec of each layer, at the rates' mean over weights."""
        limits = {name: (min(self.least, codec.most), codec.largest_rate) for name, codec in found.codecs.items()}
        given = {name: codec.most for name, codec in found.codecs.items()}
        rates = levelled(found.rates, found.weights, limits, given)
        return {
            name: replace(codec, rate=round(rates[name], 3))  # pyright: ignore[reportArgumentType]
            for name, codec in found.codecs.items()
        }


def levelled(
    wanted: Mapping[str, float],
    weights: Mapping[str, int],
    limits: Mapping[str, tuple[float, float]],
    given: Mapping[str, float],
) -> dict[str, float]:
    """``wanted`` less one constant, each kept inside its limits, with the same mean over weights as ``given``."""
    total = sum(given[name] * weights[name] for name in wanted)

    def rates(constant: float) -> dict[str, float]:
        return {name: min(max(wanted[name] - constant, limits[name][0]), limits[name][1]) for name in wanted}

    def kept(constant: float) -> bool:
        return sum(rate * weights[name] for name, rate in rates(constant).items()) <= total

    return rates(bisected(-100.0, 100.0, kept, _HALVINGS)[1])
