"""The same rank everywhere."""

from __future__ import annotations

from corank.search import SEARCHES, UniformRanks, spent_bits
from corank.testing import check_search, small_problem


def test_conformance() -> None:
    check_search(UniformRanks())
    assert SEARCHES["uniform"] is UniformRanks


def test_ranks_are_equal_up_to_the_remainder() -> None:
    everything = sum(layer.full_rank * layer.bits_per_rank for layer in small_problem(0).layers.values())
    for budget in range(0, everything + 500, 97):
        problem = small_problem(budget)
        ranks = UniformRanks()(problem).ranks
        free = [ranks[name] for name, layer in problem.layers.items() if ranks[name] < layer.full_rank]
        assert not free or max(ranks.values()) - min(free) <= 1 or min(free) >= 1
        assert max(free, default=0) - min(free, default=0) <= 1
        for name in problem.layers:  # nothing more of the remainder could have been given
            more = {**ranks, name: ranks[name] + 1}
            if ranks[name] == min(ranks.values()) and ranks[name] < problem.layers[name].full_rank:
                assert spent_bits(problem, more) > budget


def test_enough_for_all() -> None:
    problem = small_problem(10**9)
    assert UniformRanks()(problem).ranks == {name: layer.full_rank for name, layer in problem.layers.items()}
