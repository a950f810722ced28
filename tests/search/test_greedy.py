"""The knapsack: optimal against every other allocation where the budget is used up."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from corank.search import SEARCHES, AllocationProblem, Greedy, spent_bits
from corank.search.greedy import grow, shrink
from corank.testing import check_search, small_problem


def gained(problem: AllocationProblem, ranks: dict[str, int]) -> float:
    return sum(float(problem.layers[name].gains[:rank].sum()) for name, rank in ranks.items())


def test_conformance() -> None:
    check_search(Greedy())
    assert SEARCHES["greedy"] is Greedy


@pytest.mark.parametrize("budget", [1500, 3000, 4500])
def test_no_other_allocation_of_no_more_bits_gains_more(budget: int) -> None:
    problem = small_problem(budget)
    found = dict(Greedy()(problem).ranks)
    spent = spent_bits(problem, found)
    names = list(problem.layers)
    slack = max(float(layer.gains[0]) / layer.bits_per_rank for layer in problem.layers.values()) * (budget - spent)
    for ranks in itertools.product(*(range(layer.full_rank + 1) for layer in problem.layers.values())):
        other = dict(zip(names, ranks, strict=True))
        if spent_bits(problem, other) <= budget:
            assert gained(problem, other) <= gained(problem, found) * (1 + 1e-5) + slack


def test_nothing_affordable_is_left() -> None:
    problem = small_problem(3000)
    ranks = Greedy()(problem).ranks
    left = 3000 - spent_bits(problem, ranks)
    for name, layer in problem.layers.items():
        assert ranks[name] == layer.full_rank or layer.bits_per_rank > left


def test_ranks_without_gain_are_not_taken() -> None:
    problem = small_problem(10**9)
    layers = {
        name: replace(layer, gains=torch.where(torch.arange(layer.full_rank) < 2, layer.gains, 0.0))
        for name, layer in problem.layers.items()
    }
    assert Greedy()(replace(problem, layers=layers)).ranks == dict.fromkeys(layers, 2)


@pytest.mark.parametrize("seed", range(20))
def test_shrink_keeps_the_budget_and_takes_no_more_than_it_must(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    problem = small_problem(int(torch.randint(0, 6000, (1,), generator=generator)), seed)
    ranks = {
        name: int(torch.randint(0, layer.full_rank + 1, (1,), generator=generator))
        for name, layer in problem.layers.items()
    }
    given = dict(ranks)
    less = shrink(problem, ranks)
    assert ranks == given
    assert spent_bits(problem, less) <= problem.budget_bits
    assert all(0 <= less[name] <= ranks[name] for name in ranks)
    if spent_bits(problem, ranks) <= problem.budget_bits:
        assert less == ranks
    more = grow(problem, less)
    assert spent_bits(problem, more) <= problem.budget_bits
    assert all(more[name] >= less[name] for name in less)
