"""One rate for the network, shared out: the mean stays, and no exchange between two layers would lose less."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import corank
from corank.codecs import RateUniform, Uniform
from corank.errors import ConfigError
from corank.search import SEARCHES, AllocationProblem, Rates
from corank.search.rates import levelled
from corank.testing import check_search, small_problem


def rated(rate: float = 2.0) -> AllocationProblem:
    """The small problem, its layers coded at a rate."""
    problem = small_problem(0)
    assert problem.candidates is not None
    codecs = dict.fromkeys(problem.candidates.codecs, RateUniform(4, rate))
    return replace(problem, candidates=replace(problem.candidates, codecs=codecs))  # pyright: ignore


def test_conformance() -> None:
    check_search(Rates())
    assert SEARCHES["rates"] is Rates


def test_other_codecs_are_left() -> None:
    assert not Rates()(small_problem(0)).codecs


def test_the_mean_over_weights_stays_and_layers_that_are_not_free_keep_theirs() -> None:
    problem = rated()
    known = problem.candidates
    assert known is not None
    found = Rates()(problem)
    assert set(found.codecs) == set(known.free) and len(found.codecs) > 1
    counts = {name: math.prod(known.shapes[name]) for name in found.codecs}
    mean = sum(codec.rate * counts[name] for name, codec in found.codecs.items()) / sum(counts.values())
    assert mean == pytest.approx(2.0, abs=0.002)


def test_no_exchange_of_bits_loses_less_where_a_bit_takes_three_quarters_off() -> None:
    lost, counts = {"a": 3.0, "b": 0.2, "c": 0.04}, {"a": 100, "b": 400, "c": 50}
    wanted = {name: 2 + math.log2(lost[name] / counts[name]) / 2 for name in lost}
    rates = levelled(wanted, counts, dict.fromkeys(lost, (0.1, 8.0)), dict.fromkeys(lost, 2.0))

    def total(chosen: dict[str, float]) -> float:
        return sum(lost[name] * 4 ** (2 - chosen[name]) for name in lost)

    assert sum(rates[name] * counts[name] for name in lost) == pytest.approx(2 * 550)
    for one, other in itertools.permutations(lost, 2):
        moved = {**rates, one: rates[one] + 1 / counts[one], other: rates[other] - 1 / counts[other]}
        assert total(moved) >= total(rates) * (1 - 1e-9)


def test_limits_hold_and_others_make_up_for_them() -> None:
    wanted, counts = {"a": 5.0, "b": -4.0, "c": 2.0}, dict.fromkeys("abc", 10)
    rates = levelled(wanted, counts, dict.fromkeys("abc", (0.5, 3.5)), dict.fromkeys("abc", 2.0))
    assert rates["b"] == 0.5 and rates["a"] == 3.5 and rates["c"] == pytest.approx(2.0, abs=1e-6)


def test_without_spread_rates_are_equal() -> None:
    assert {codec.rate for codec in Rates(spread=0.0)(rated()).codecs.values()} == {2.0}


@pytest.mark.parametrize("fields", [{"least": 0}, {"least": 7}, {"spread": -0.1}, {"spread": 2}])
def test_refusals(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Rates(**fields)


def test_a_layer_that_matters_more_gets_more() -> None:
    torch.manual_seed(0)
    inner = [nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU()]
    model = nn.Sequential(nn.Linear(16, 48), *inner, nn.Linear(48, 6)).eval()
    with torch.no_grad():
        model[4].weight[:, 24:] = 0  # half of what the layer before gives is not looked at
        model[4].weight.mul_(3)
    small = corank.quantize(model, torch.randn(256, 16), rate=2.0, seed=0)
    rates = {name: plan.codec.rate for name, plan in small.corank_run.plan.layers.items()}
    assert rates["0"] == rates["6"] == 6.0 and rates["2"] + rates["4"] == pytest.approx(4.0, abs=0.01)
    equal = corank.quantize(model, torch.randn(256, 16), rate=2.0, search="uniform", seed=0)
    assert {plan.codec.rate for plan in equal.corank_run.plan.layers.values()} == {2.0, 6.0}
    assert corank.quantize(model, torch.randn(64, 16), bits=2, search="rates").corank_run.plan.layers[
        "2"
    ].codec == Uniform(2, range="mse", half=True)
