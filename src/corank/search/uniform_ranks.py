"""The same rank in every layer."""

from __future__ import annotations

from dataclasses import dataclass

from corank.search.allocation import Allocation
from corank.search.base import Search
from corank.search.problem import AllocationProblem, spent_bits

__all__ = ["UniformRanks"]


@dataclass(frozen=True)
class UniformRanks(Search):
    """The largest rank that all layers can have together (a layer's full rank is its limit); what is left of the
    budget gives one more to as many layers as it can, in the order they run."""

    needs_coded_weights = False

    def __call__(self, problem: AllocationProblem) -> Allocation:
        ranks = dict.fromkeys(problem.layers, 0)
        top = max((layer.full_rank for layer in problem.layers.values()), default=0)
        for rank in range(1, top + 1):
            higher = {name: min(rank, layer.full_rank) for name, layer in problem.layers.items()}
            if spent_bits(problem, higher) > problem.budget_bits:
                break
            ranks = higher
        for name, layer in problem.layers.items():
            more = {**ranks, name: ranks[name] + 1}
            if ranks[name] < layer.full_rank and spent_bits(problem, more) <= problem.budget_bits:
                ranks = more
        return Allocation(ranks)
