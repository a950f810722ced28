"""Levels for sets of numbers: k-means, quantiles, a grid, and k-means with a price on rare levels.

All take ``sets`` ``(B, N)`` and ``weights`` ``(B, N)``, not negative, of their numbers, in float, and give levels
``(B, count)``, ascending, the last one repeated where fewer do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["SortedSets", "compacted", "grid", "kmeans", "quantiles"]

_LARGEST = 1 << 20  # numbers of a set that are looked at; of a larger one an even selection in order of size
_STEPS = 200


@dataclass(frozen=True)
class SortedSets:
    """Sets in ascending order, and sums over their first numbers.

    Attributes:
        numbers: ``(B, N)`` float64.
        mass, first, second: ``(B, N + 1)`` float64, sums of the weights, and of them times the numbers and squares.
    """

    numbers: Tensor
    mass: Tensor
    first: Tensor
    second: Tensor

    @classmethod
    def of(cls, sets: Tensor, weights: Tensor) -> SortedSets:
        # Sorted once, every cluster is a run of numbers, and its sums are differences of two sums from the front: in
        # float32 such differences of long sums would cancel.
        numbers, mass = _in_order(sets, weights)
        part = mass.clone()  # one product at a time: a set in float64 is twice its own size
        sums = [_running(part)]
        sums.append(_running(torch.mul(mass, numbers, out=part)))
        sums.append(_running(torch.square(numbers, out=part).mul_(mass)))
        return cls(numbers, *sums)

    def within(self, thresholds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mass, first and second sum between consecutive ``thresholds`` ``(B, K - 1)``, ``(B, K)`` each."""
        # A number on a threshold belongs above it, as where codebooks round.
        places = torch.searchsorted(self.numbers, thresholds.contiguous())
        start = places.new_zeros(len(places), 1)
        places = torch.cat([start, places, start + self.numbers.shape[1]], 1)
        found = [sums.gather(1, places).diff(dim=1) for sums in (self.mass, self.first, self.second)]
        return found[0], found[1], found[2]

    def at(self, shares: Tensor) -> Tensor:
        """The numbers ``(B, K)`` below which there are these ``shares`` ``(K,)`` of the mass."""
        total = self.mass[:, -1:]
        wanted = (shares.to(total) * total).clamp(min=0)
        # Numbers without mass at the front (pruned weights, outliers) must not become the least level.
        first = torch.searchsorted(self.mass[:, 1:].contiguous(), torch.zeros_like(total), right=True)
        places = torch.searchsorted(self.mass[:, 1:].contiguous(), wanted.contiguous())
        return self.numbers.gather(1, torch.maximum(places, first).clamp(max=self.numbers.shape[1] - 1))


def _in_order(sets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers ascending, and their weights, in float64; an even selection of many."""
    ordered, order = sets.sort(1)
    step = -(-sets.shape[1] // _LARGEST)
    order = order[:, ::step].contiguous()
    return ordered[:, ::step].double(), weights.gather(1, order).double()


def _running(part: Tensor) -> Tensor:
    """Sums ``(B, N + 1)`` of the first 0 to N numbers ``(B, N)``."""
    found = part.new_zeros(len(part), part.shape[1] + 1)
    found[:, 1:] = part.cumsum(1)
    return found


def kmeans(sets: SortedSets, count: int) -> Tensor:
    """Lloyd's iterations until nothing moves, from quantiles, from an even grid and from halfway; the best of them."""
    shares = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    ranked, ends = sets.at(shares), sets.at(torch.tensor([0.0, 1.0], dtype=torch.float64))
    even = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * shares.to(ends)
    # Lloyd's end depends on its start: ranks serve where numbers are dense, the even grid serves the tails.
    found = torch.stack([_lloyd(sets, start) for start in (ranked, even, (ranked + even) / 2)])
    errors = torch.stack([_squared_error(sets, levels) for levels in found])
    return found.gather(0, errors.argmin(0, keepdim=True).expand(1, *ranked.shape))[0]


def quantiles(sets: SortedSets, count: int) -> Tensor:
    """Numbers of equal steps in rank, least and largest included."""
    return sets.at(torch.arange(count, dtype=torch.float32) / max(1, count - 1))


def grid(sets: SortedSets, count: int) -> Tensor:
    """Those multiples of a step that numbers round to, for the least step that gives at most ``count``, 3 or more.

    Steps are tried from a ten-thousandth of the largest magnitude on, in steps of five ten-thousandths.
    """
    largest = sets.numbers.abs().amax(1, keepdim=True).clamp(min=1e-30)
    return torch.stack([_grid_of(unit, count) for unit in sets.numbers / largest]) * largest


def compacted(levels: Tensor) -> Tensor:
    """Ascending levels ``(B, K)``, each once but the last, which is repeated instead."""
    levels = levels.sort(1).values
    # Repeats may stand at the end alone: there no threshold leads to them and no code is spent on them.
    again = torch.zeros_like(levels, dtype=torch.bool)
    again[:, 1:] = levels[:, 1:] == levels[:, :-1]
    return torch.where(again, levels[:, -1:], levels).sort(1).values


def _lloyd(sets: SortedSets, levels: Tensor) -> Tensor:
    for _ in range(_STEPS):
        mass, first, _ = sets.within((levels[:, 1:] + levels[:, :-1]) / 2)
        # A level that nothing goes to stays, in its own cell, so that levels stay ascending.
        moved = torch.where(mass > 0, first / mass.clamp(min=1e-300), levels)
        if torch.equal(moved, levels):
            break
        levels = moved
    return levels


def _squared_error(sets: SortedSets, levels: Tensor) -> Tensor:
    mass, first, second = sets.within((levels[:, 1:] + levels[:, :-1]) / 2)
    # sum m (x - l)^2, multiplied out, from the three sums of each cell.
    return (second - 2 * levels * first + levels.square() * mass).sum(1, keepdim=True)


def _grid_of(unit: Tensor, count: int) -> Tensor:
    """The same for one set ``(N,)`` within -1 and 1."""
    steps = torch.arange(1e-4, 1.0 + 5e-4, 5e-4, dtype=unit.dtype, device=unit.device)
    few = unit[torch.linspace(0, len(unit) - 1, min(256, len(unit)), dtype=torch.float32, device=unit.device).long()]
    # In ascending order and one at a time: the first that is sound is the least.
    some = torch.cat([_distinct(few, part) for part in steps.split(256)])
    for step in steps[some <= count].split(1):  # the others are ruled out by a few numbers already
        if int(_distinct(unit, step)) <= count:
            levels = (unit / step).round_().unique_consecutive() * step
            return torch.cat([levels, levels[-1:].expand(count - len(levels))])
    raise AssertionError("the step of the largest magnitude gives three multiples at most")


def _distinct(unit: Tensor, steps: Tensor) -> Tensor:
    """How many multiples of each step the numbers round to, ``(S,)``."""
    # Numbers ascend, so do their multiples: distinct ones are counted as changes, without sorting for each step.
    return ((unit / steps[:, None]).round_().diff(dim=1) != 0).sum(1) + 1
