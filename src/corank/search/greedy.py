"""The closed-form allocation: a knapsack over the layers' exact error-versus-rank curves."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

from corank.search.allocation import Allocation
from corank.search.base import Search
from corank.search.problem import AllocationProblem, spent_bits

__all__ = ["Greedy", "grow", "shrink"]


@dataclass(frozen=True)
class Greedy(Search):
    """Takes ranks in order of gain per bit until the budget is spent; milliseconds, no gradient step.

    The eigenvalue tail of a layer's output error is its exact error-versus-rank curve, weighted by the loss's
    sensitivity, so the curves are concave and this order is optimal up to the last rank that does not fit.
    """

    def __call__(self, problem: AllocationProblem) -> Allocation:
        return Allocation(grow(problem, dict.fromkeys(problem.layers, 0)))


def grow(problem: AllocationProblem, ranks: Mapping[str, int]) -> dict[str, int]:
    """Spends what is left of the budget where a rank gains most per bit."""
    ranks = dict(ranks)
    left = problem.budget_bits - spent_bits(problem, ranks)
    heap = [entry for name in ranks if (entry := _next(problem, name, ranks[name])) is not None]
    heapq.heapify(heap)
    while heap:
        _, name = heapq.heappop(heap)
        cost = problem.layers[name].bits_per_rank
        if cost > left:
            continue
        ranks[name] += 1
        left -= cost
        entry = _next(problem, name, ranks[name])
        if entry is not None:
            heapq.heappush(heap, entry)
    return ranks


def shrink(problem: AllocationProblem, ranks: Mapping[str, int], minimum: int = 0) -> dict[str, int]:
    """Takes ranks away where they cost least per bit, until the budget is kept.

    No layer goes below ``minimum`` unless the budget cannot hold that rank in every layer.
    """
    ranks = dict(ranks)
    spent = spent_bits(problem, ranks)
    if spent_bits(problem, {name: min(rank, minimum) for name, rank in ranks.items()}) > problem.budget_bits:
        minimum = 0
    while spent > problem.budget_bits:
        name = min(
            (name for name, rank in ranks.items() if rank > minimum),
            key=lambda one: float(problem.layers[one].gains[ranks[one] - 1]) / problem.layers[one].bits_per_rank,
        )
        ranks[name] -= 1
        spent -= problem.layers[name].bits_per_rank
    return ranks


def _next(problem: AllocationProblem, name: str, rank: int) -> tuple[float, str] | None:
    layer = problem.layers[name]
    if rank >= len(layer.gains):  # none are known where there is nothing to spend
        return None
    gain = float(layer.gains[rank])
    return (-gain / layer.bits_per_rank, name) if gain > 0 else None
