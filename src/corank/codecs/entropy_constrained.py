"""Entropy-constrained scalar quantization (Chou, Lookabaugh and Gray, 1989; ECSQ of arXiv 2108.12704)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corank.codecs.clusters import SortedSets, kmeans, quantiles
from corank.codecs.fitted import FittedLevels, check_fitted
from corank.errors import ConfigError

__all__ = ["EntropyConstrained", "lagrangian"]

_STEPS = 200


@dataclass(frozen=True)
class EntropyConstrained(FittedLevels):
    """At most ``2 ** bits`` levels of least ``mean((w - c)^2) - lambda mean(ln p(c))``, ``p`` being shares of weights.

    A weight goes to a level by that cost, so levels that are used often attract more. Codes have the same width as any
    others; what is gained is gained where an entropy coder stores them. The search starts from three times as many
    quantiles, as the authors', and from k-means; the better end is kept.

    Args:
        bits: 1 to 8.
        per: what has levels of its own: "row", "layer" or "network".
        scaled: levels are in units of each row's root mean square; not with ``per="row"``.
        zero: zero is a level, the others are for the weights that are not zero; weights then go to the closest.
        rate: the price of a nat, ``lambda``, in units of the mean squared error of k-means with as many levels.
    """

    bits: int = 4
    per: str = "layer"
    scaled: bool = True
    zero: bool = False
    rate: float = 1.0

    def __post_init__(self) -> None:
        check_fitted(self)
        if not 0 <= self.rate < float("inf"):
            raise ConfigError(f"rate={self.rate!r}: 0 (k-means) or more, e.g. 1.0")

    def find(self, sets: SortedSets, count: int) -> tuple[Tensor, Tensor | None]:
        plain = kmeans(sets, count)
        free = torch.zeros(1, dtype=torch.float64, device=plain.device)
        price = self.rate * lagrangian(sets, plain, torch.ones_like(plain), free)
        ends = []
        for start in (plain, quantiles(sets, max(count, min(3 * count, sets.numbers.shape[1])))):
            levels, share = _descend(sets, start, price, count)
            ends.append((levels, share, lagrangian(sets, levels, share, price)))
        first = ends[0][2] <= ends[1][2]
        levels, share = (torch.where(first, ends[0][part], ends[1][part]) for part in (0, 1))
        return levels, _thresholds(levels, share, price)


def lagrangian(sets: SortedSets, levels: Tensor, share: Tensor, price: Tensor) -> Tensor:
    """``mean((w - c)^2) - price mean(ln p(c))`` ``(B, 1)`` of levels and their shares ``(B, K)``, unused ones last."""
    mass, first, second = sets.within(_thresholds(levels, share, price))
    error = second - 2 * levels * first + levels.square() * mass
    return (error - price * mass * share.clamp(min=1e-300).log()).sum(1, keepdim=True) / sets.mass[:, -1:]


def _thresholds(levels: Tensor, share: Tensor, price: Tensor) -> Tensor:
    """Where the cost of one level equals that of the next; never reached for levels of no share."""
    gap = levels.diff(dim=1)
    odds = share.clamp(min=1e-300).log().diff(dim=1)
    found = (levels[:, 1:] + levels[:, :-1]) / 2 - price * odds / (2 * gap.clamp(min=1e-300))
    found = torch.minimum(torch.maximum(found, levels[:, :-1]), levels[:, 1:])
    return torch.where((share[:, 1:] > 0) & (gap > 0), found, torch.inf)


def _descend(sets: SortedSets, levels: Tensor, price: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """At most ``count`` levels and shares, no worse than ``levels`` are where these are no more."""
    mass, _, _ = sets.within((levels[:, 1:] + levels[:, :-1]) / 2)
    levels, share = _ordered(levels, mass / sets.mass[:, -1:])
    for _ in range(levels.shape[1] - count):
        levels, share = _step(sets, *_merged(levels, share, price, count), price)
    levels, share = levels[:, :count], share[:, :count]
    for _ in range(_STEPS):
        before = levels
        levels, share = _step(sets, levels, share, price)
        if torch.equal(levels, before):
            break
    return levels, share


def _step(sets: SortedSets, levels: Tensor, share: Tensor, price: Tensor) -> tuple[Tensor, Tensor]:
    """Every number to the level of least cost, every level to the mean of its numbers."""
    mass, first, _ = sets.within(_thresholds(levels, share, price))
    levels = torch.where(mass > 0, first / mass.clamp(min=1e-300), levels)
    return _ordered(levels, mass / sets.mass[:, -1:])


def _ordered(levels: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Used levels ascending, then the last of them again for those that are not used."""
    key, order = torch.where(share > 0, levels, torch.inf).sort(1)
    share = share.gather(1, order)
    last = torch.where(share > 0, key, -torch.inf).amax(1, keepdim=True)
    return torch.where(share > 0, key, last), share


def _merged(levels: Tensor, share: Tensor, price: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The pair of neighbours whose union costs least made one, in sets of more than ``count`` levels."""
    one, other = share[:, :-1], share[:, 1:]
    both = one + other
    rate = torch.special.xlogy(both, both) - torch.special.xlogy(one, one) - torch.special.xlogy(other, other)
    cost = one * other / both.clamp(min=1e-300) * levels.diff(dim=1).square() - price * rate
    place = torch.where(other > 0, cost, torch.inf).argmin(1, keepdim=True)
    mean = (levels[:, :-1] * one + levels[:, 1:] * other) / both.clamp(min=1e-300)
    many = (share > 0).sum(1, keepdim=True) > count
    new_levels = levels.scatter(1, place, mean.gather(1, place))
    new_share = share.scatter(1, place, both.gather(1, place)).scatter(1, place + 1, 0.0)
    return _ordered(torch.where(many, new_levels, levels), torch.where(many, new_share, share))
