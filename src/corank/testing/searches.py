"""What every search must do."""

from __future__ import annotations

import copy

import torch

from corank.search import Allocation, AllocationProblem, Search, spent_bits
from corank.testing.problems import small_problem

__all__ = ["check_search"]


def check_search(search: Search) -> None:
    """Runs ``search`` on a small problem under budgets from nothing to more than enough.

    Raises:
        AssertionError: naming the budget and what does not hold.
    """
    layers = small_problem(0).layers
    everything = sum(layer.full_rank * layer.bits_per_rank for layer in layers.values())
    cheapest = min(layer.bits_per_rank for layer in layers.values())
    for budget_bits in (0, 1, cheapest, everything // 5, everything // 2, everything, 2 * everything):
        _check_found(search, small_problem(budget_bits))


def _check_codecs(search: Search, problem: AllocationProblem, found: Allocation, name: str) -> None:
    if not search.chooses_codecs:
        assert not found.codecs, f"{name}: codecs from a search whose chooses_codecs is False"
        return
    assert problem.candidates is not None
    decided = set(found.codecs) - set(problem.candidates.free)
    assert not decided, f"{name}: other codecs for {sorted(decided)}, which are not free to get any"


def _check_found(search: Search, problem: AllocationProblem) -> None:
    name = f"{search}, budget {problem.budget_bits} bits"
    before = copy.deepcopy(problem.context.model.state_dict())
    flags = [module.training for module in problem.context.model.modules()]
    trained = [parameter.requires_grad for parameter in problem.context.model.parameters()]
    directions = {layer: problem.layers[layer].directions.product() for layer in problem.layers}
    found = search(problem)
    ranks = found.ranks
    assert set(ranks) == set(problem.layers), f"{name}: ranks for {sorted(ranks)}, not for the problem's layers"
    for layer, rank in ranks.items():
        full = problem.layers[layer].full_rank
        assert type(rank) is int and 0 <= rank <= full, f"{name}: {layer} has rank {rank!r} of {full}"
    _check_codecs(search, problem, found, name)
    more = problem.candidates.code_bits(found.codecs) if problem.candidates is not None else 0
    spent = spent_bits(problem, ranks) + more
    assert spent <= problem.budget_bits, f"{name}: the ranks and codecs take {spent} bits"
    again = search(problem)
    assert dict(again.ranks) == dict(ranks), f"{name}: the same seed gives other ranks"
    assert dict(again.codecs) == dict(found.codecs), f"{name}: the same seed gives other codecs"
    after = problem.context.model.state_dict()
    assert list(after) == list(before), f"{name}: the model has other tensors than before"
    assert all(torch.equal(after[key], before[key]) for key in before), f"{name}: the model's tensors were changed"
    assert [module.training for module in problem.context.model.modules()] == flags, (
        f"{name}: training flags were changed"
    )
    still = [parameter.requires_grad for parameter in problem.context.model.parameters()]
    assert still == trained, f"{name}: requires_grad was changed"
    for layer, product in directions.items():
        same = torch.equal(problem.layers[layer].directions.product(), product)
        assert same, f"{name}: the directions of {layer} were changed"
