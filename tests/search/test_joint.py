"""Codecs and ranks from one budget."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from corank.codecs import Uniform
from corank.errors import ConfigError
from corank.search import SEARCHES, Allocation, AllocationProblem, CoRa, Greedy, Joint, spent_bits
from corank.testing import check_search, small_problem

BITS, GROUPS = (1, 2, 3), (0, 4)


def lost(problem: AllocationProblem, found: Allocation) -> float:
    known = problem.candidates
    assert known is not None
    total = 0.0
    for name, codec in known.codecs.items():
        (curve,) = known.curves(name, (found.codecs.get(name, codec),), False)
        total += float(curve.errors()[found.ranks[name]])
    return total


def spent(problem: AllocationProblem, found: Allocation) -> int:
    assert problem.candidates is not None
    return spent_bits(problem, found.ranks) + problem.candidates.code_bits(found.codecs)


@pytest.mark.parametrize("search", [Joint(), Joint(BITS, GROUPS), Joint(then=CoRa(iterations=3, batch_size=8))])
def test_conformance(search: Joint) -> None:
    check_search(search)
    assert SEARCHES["joint"] is Joint


@pytest.mark.parametrize("budget", [0, 400, 1500])
def test_no_other_codecs_and_ranks_of_no_more_bits_lose_less(budget: int) -> None:
    problem = small_problem(budget)
    known = problem.candidates
    assert known is not None
    found = Joint(BITS, GROUPS)(problem)
    options = []
    for name, base in known.codecs.items():
        codecs = [Uniform(bits, group=group) for bits in BITS for group in GROUPS] if name in known.free else [base]
        curves = known.curves(name, codecs, False)
        options.append(
            [pair for curve in curves for pair in zip(curve.errors().tolist(), curve.bits().tolist(), strict=True)]
        )
    limit = budget + known.base_bits
    errors = (
        sum(error for error, _ in chosen)
        for chosen in itertools.product(*options)
        if sum(bits for _, bits in chosen) <= limit
    )
    assert lost(problem, found) == pytest.approx(min(errors), rel=1e-9)
    assert spent(problem, found) <= budget


@pytest.mark.parametrize("budget", [400, 1500])
def test_other_codecs_lose_less_than_ranks_alone(budget: int) -> None:
    problem = small_problem(budget)
    found = Joint(BITS, GROUPS)(problem)
    assert found.codecs
    assert lost(problem, found) < lost(problem, Greedy()(problem))


def test_more_budget_never_loses_more() -> None:
    losses = []
    for budget in range(0, 6000, 300):
        problem = small_problem(budget)
        losses.append(lost(problem, Joint(BITS, GROUPS)(problem)))
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in itertools.pairwise(losses))
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("budget", [0, 1500, 3000, 10**6])
def test_a_single_codec_leaves_the_ranks_to_the_same_curves_as_greedy(budget: int) -> None:
    problem = small_problem(budget)
    found, greedy = Joint(bits=(2,), groups=(0,))(problem), Greedy()(problem)
    assert not found.codecs
    assert lost(problem, found) <= lost(problem, greedy) * (1 + 1e-6)
    assert spent(problem, found) <= budget
    if budget == 10**6:
        assert dict(found.ranks) == dict(greedy.ranks)


def test_a_search_that_follows_starts_there_and_spends_no_more() -> None:
    problem = small_problem(2500)
    first = Joint(BITS, GROUPS)(problem)
    later = Joint(BITS, GROUPS, then=CoRa(iterations=4, batch_size=8))(problem)
    assert later.codecs == first.codecs
    assert later.iterations == len(later.history) == 4
    assert spent(problem, later) <= spent(problem, first)


def test_without_candidates_there_is_nothing_to_choose() -> None:
    with pytest.raises(ConfigError, match="no candidates"):
        Joint()(replace(small_problem(100), candidates=None))


@pytest.mark.parametrize(
    "given", [{"bits": (0,)}, {"bits": (9,)}, {"groups": ()}, {"groups": (-1,)}, {"sensitivity": "x"}]
)
def test_what_it_cannot_be(given: dict) -> None:
    with pytest.raises(ConfigError):
        Joint(**given)
