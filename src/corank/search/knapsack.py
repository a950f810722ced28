"""One choice for each item, least error within a limit of bits: exact, by dominance and a Lagrangian bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["KnapsackItem", "allocate"]

_STATES = 20_000  # partial allocations kept at once; beyond it the solution is near the best, not the best
_SUMS = 1 << 22  # of partial allocations and options formed at once


@dataclass(frozen=True)
class KnapsackItem:
    """What one item may be.

    Attributes:
        errors: ``(n,)`` float64.
        bits: ``(n,)`` int64.
    """

    errors: Tensor
    bits: Tensor

    def priced(self, price: float) -> Tensor:
        return self.errors + price * self.bits.double()


def allocate(items: Sequence[KnapsackItem], limit: int) -> list[int] | None:
    """The option of each item, of least total error among those of at most ``limit`` bits in all.

    Lagrangian relaxation gives an allocation and a bound. Options and partial allocations that cannot beat the first
    are dropped by the second; what remains is searched exhaustively, unless it is very much (then finely enough).

    Returns:
        None when not even the cheapest options fit.
    """
    if sum(int(item.bits.min()) for item in items) > limit:
        return None
    price = _price(items, limit)
    known = _fill(items, _chosen(items, price), limit)
    # Every item has its least error already.
    if price == 0.0:
        return known
    return _search(items, limit, price, known)


def _chosen(items: Sequence[KnapsackItem], price: float) -> list[int]:
    """The best options at a price for each bit; of equals the one of fewest bits."""
    found = []
    for item in items:
        # The limit of rising prices: infinity times bits would make all options alike.
        if price == float("inf"):
            best = item.bits == item.bits.min()
            found.append(int(torch.where(best, item.errors, torch.inf).argmin()))
            continue
        # Ties are what happens exactly at the price sought: there the one of fewer bits makes the total fit.
        priced = item.priced(price)
        found.append(int(torch.where(priced == priced.min(), item.bits.double(), torch.inf).argmin()))
    return found


def _total(items: Sequence[KnapsackItem], chosen: Sequence[int]) -> tuple[float, int]:
    pairs = list(zip(items, chosen, strict=True))
    return sum(float(item.errors[one]) for item, one in pairs), sum(int(item.bits[one]) for item, one in pairs)


def _price(items: Sequence[KnapsackItem], limit: int) -> float:
    """The least price for a bit, within one part in 10^12, at which the best options fit; 0 if all do."""
    if _total(items, _chosen(items, 0.0))[1] <= limit:
        return 0.0
    # Bits never rise with the price, so halving finds it.
    worst = max(float(item.errors.max() - item.errors.min()) for item in items)
    low, high = 0.0, max(worst, 1e-300) * 2  # an error for one bit: nothing is worth so much
    for _ in range(200):
        # While nothing is known from below by factors of 16: the price may lie many magnitudes under the worst.
        middle = (low + high) / 2 if low > 0 else high / 16
        if _total(items, _chosen(items, middle))[1] <= limit:
            high = middle
        else:
            low = middle
        if high - low <= 1e-12 * high:
            break
    # The end that is known to fit.
    return high


def _fill(items: Sequence[KnapsackItem], chosen: list[int], limit: int) -> list[int]:
    """Takes, as long as there is one, the single change that lowers the error most and still fits."""
    chosen = list(chosen)
    left = limit - _total(items, chosen)[1]
    while True:
        best: tuple[float, int, int] | None = None
        for place, (item, now) in enumerate(zip(items, chosen, strict=True)):
            affordable = item.bits <= item.bits[now] + left
            errors = torch.where(affordable, item.errors, torch.inf)
            option = int(errors.argmin())
            gain = float(item.errors[now] - item.errors[option])
            if gain > 0 and (best is None or gain > best[0]):
                best = (gain, place, option)
        if best is None:
            return chosen
        _, place, option = best
        left -= int(items[place].bits[option] - items[place].bits[chosen[place]])
        chosen[place] = option


def _search(items: Sequence[KnapsackItem], limit: int, price: float, known: list[int]) -> list[int]:
    """The best allocation, or ``known`` where none is better."""
    goal = _total(items, known)[0]
    # For an allocation within the limit sum e >= sum min(e + p b) - p limit: the Lagrangian bound on every one.
    least = [float(item.priced(price).min()) for item in items]
    slack = goal - (sum(least) - price * limit)  # how far ``known`` may be from the best
    # The sums above are rounded; without this an option of the best allocation could be dropped by a last digit.
    slack += 1e-12 * (abs(goal) + sum(abs(one) for one in least) + price * limit)
    # An option lifts the bound by what it is priced above the cheapest: past the slack it cannot beat ``known``.
    kept = [torch.nonzero(item.priced(price) - one <= slack).flatten() for item, one in zip(items, least, strict=True)]
    cheapest = [int(item.bits[keep].min()) for item, keep in zip(items, kept, strict=True)]
    errors, bits = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    trail: list[tuple[Tensor, Tensor]] = []
    for place, (item, keep) in enumerate(zip(items, kept, strict=True)):
        thin = _thinned(bits, max(1, min(_STATES, _SUMS // len(keep))))
        more_errors = (errors[thin, None] + item.errors[keep]).flatten()
        more_bits = (bits[thin, None] + item.bits[keep]).flatten()
        # The same bound with the items so far as they are; only those to come may still be chosen freely.
        bound = more_errors + price * (more_bits - limit).double() + sum(least[place + 1 :])
        fits = more_bits + sum(cheapest[place + 1 :]) <= limit
        good = torch.nonzero(fits & (bound <= goal + 1e-9 * slack)).flatten()
        # What follows costs each of them the same, so fewer bits and less error now stay better to the end.
        good = good[_undominated(more_errors[good], more_bits[good])]
        if len(good) == 0:
            return known
        trail.append((thin[good // len(keep)], keep[good % len(keep)]))
        errors, bits = more_errors[good], more_bits[good]
    place = int(errors.argmin())
    if float(errors[place]) >= goal:
        return known
    found = []
    # Only parents and options were kept of each step, not whole allocations: walk back from the best end.
    for parents, options in reversed(trail):
        found.append(int(options[place]))
        place = int(parents[place])
    return found[::-1]


def _undominated(errors: Tensor, bits: Tensor) -> Tensor:
    """Places, by bits, of those than which no other has both no more bits and no more error."""
    # Two stable sorts: by bits, and among equal bits by error.
    order = torch.argsort(errors, stable=True)
    order = order[torch.argsort(bits[order], stable=True)]
    best = torch.cummin(errors[order], 0).values if len(order) else errors
    before = torch.cat([torch.full((1,), torch.inf, dtype=errors.dtype), best[:-1]]) if len(order) else errors
    return order[errors[order] < before]


def _thinned(bits: Tensor, most: int) -> Tensor:
    """At most ``most`` places, spread over the range: in each stretch the last, which has the least error."""
    if len(bits) <= most:
        return torch.arange(len(bits))
    span = int(bits[-1] - bits[0]) + 1
    # Undominated and by bits, so errors fall along them.
    stretch = (bits - bits[0]) * most // span
    last = torch.ones(len(bits), dtype=torch.bool)
    last[:-1] = stretch[1:] != stretch[:-1]
    return torch.nonzero(last).flatten()
