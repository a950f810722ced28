"""CoRa's search: the mask, the penalty, the hardening, and what the search finds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from reference import butterworth as reference
from torch import Tensor

from corank.errors import ConfigError
from corank.search import SEARCHES, CoRa, Greedy, butterworth, spent_bits
from corank.search.composed import ComposedModel
from corank.search.cora import _Run, compose, harden
from corank.testing import check_search, small_problem


def mask(cutoff: float, full_rank: int, order: int = 4) -> Tensor:
    return butterworth(torch.tensor(cutoff), full_rank, order)


CUTOFFS = [0.01, 0.1, 0.25, 0.5, 0.9, 1.0]


@pytest.mark.parametrize("cutoff", CUTOFFS)
@pytest.mark.parametrize("full_rank", [1, 2, 16, 333])
@pytest.mark.parametrize("order", [1, 4, 8])
def test_mask_equals_its_formula(cutoff: float, full_rank: int, order: int) -> None:
    expected = torch.tensor(reference.butterworth(cutoff, full_rank, order))
    assert torch.allclose(mask(cutoff, full_rank, order), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_mask_is_one_at_first_and_falls(cutoff: float) -> None:
    values = mask(cutoff, 64)
    assert float(values[0]) == 1.0
    assert bool((values[1:] <= values[:-1]).all()) and bool((values >= 0).all())
    assert float(values[-1]) < 1


def test_mask_grows_with_the_cutoff() -> None:
    masks = torch.stack([mask(cutoff, 64) for cutoff in CUTOFFS])
    assert bool((masks[1:] >= masks[:-1]).all())
    assert bool((masks[1:, 32] > masks[:-1, 32]).all())


@pytest.mark.parametrize(("cutoff", "full_rank"), [(0.5, 8), (0.25, 64), (0.75, 100), (0.125, 512)])
def test_mask_at_the_cutoff(cutoff: float, full_rank: int) -> None:
    assert float(mask(cutoff, full_rank)[int(cutoff * full_rank)]) == pytest.approx(2**-0.5, rel=1e-5)


@pytest.mark.parametrize("cutoff", [0.1, 0.3, 0.9])
def test_gradient_of_the_mask(cutoff: float) -> None:
    weights = torch.randn(32)

    def value(at: float) -> float:
        masked = torch.tensor(reference.butterworth(at, 32, 4), dtype=torch.float64)
        return float((masked * weights.double()).sum())

    variable = torch.tensor(cutoff, requires_grad=True)
    (butterworth(variable, 32) * weights).sum().backward()
    assert variable.grad is not None
    numeric = (value(cutoff + 1e-5) - value(cutoff - 1e-5)) / 2e-5
    assert float(variable.grad) == pytest.approx(numeric, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("order", [1, 4, 10, 40])
def test_gradient_is_finite_for_the_smallest_cutoffs(order: int) -> None:
    variable = torch.tensor(0.5 / 4096, requires_grad=True)
    butterworth(variable, 4096, order).square().sum().backward()
    assert variable.grad is not None and bool(torch.isfinite(variable.grad))


def test_compose_at_the_ends_of_the_mask() -> None:
    for layer in small_problem(0).layers.values():
        whole = compose(layer, torch.ones(layer.full_rank))
        exact = layer.geometry.from_matrix(layer.coded.flatten(0, 1) + layer.directions.product())
        assert torch.allclose(whole, exact, atol=1e-6)
        none = compose(layer, torch.zeros(layer.full_rank))
        assert torch.equal(none, layer.geometry.from_matrix(layer.coded))
        cut = compose(layer, (torch.arange(layer.full_rank) < 2).float())
        product = layer.directions.truncate(2).product()
        assert torch.allclose(cut, layer.geometry.from_matrix(layer.coded.flatten(0, 1) + product), atol=1e-6)


def test_full_rank_is_the_float_model() -> None:
    problem = small_problem(0)
    composed = ComposedModel(problem.context.model, problem.layers)
    inputs = problem.context.samples.batches[0]
    for name, layer in problem.layers.items():
        composed.set_weight(name, compose(layer, torch.ones(layer.full_rank)))
    assert torch.allclose(composed.model(inputs), problem.context.model(inputs), atol=1e-5)


def cutoff_gradients(budget_bits: int, gamma: float) -> tuple[Tensor, float]:
    """The cut-offs after one unclipped step, and the extra bits before it."""
    problem = small_problem(budget_bits)
    weights = problem.weights
    found = CoRa(iterations=1, gamma=gamma, start=0.5, clip=1e9, fill=False, keep_best=False, learning_rate=1e-9)
    under_way = _Run(found, problem, None)
    course = under_way.step(0)
    assert under_way.cutoffs.grad is not None
    return under_way.cutoffs.grad.clone(), course["extra_bits"] * weights


def test_penalty_has_no_gradient_below_the_budget() -> None:
    within, spent = cutoff_gradients(10**6, gamma=1.0)
    without, _ = cutoff_gradients(10**6, gamma=0.0)
    assert spent < 10**6
    assert torch.equal(within, without)


def test_penalty_pushes_down_above_the_budget() -> None:
    beyond, spent = cutoff_gradients(100, gamma=1.0)
    without, _ = cutoff_gradients(100, gamma=0.0)
    assert spent > 100
    assert bool((beyond > without).all())
    problem = small_problem(100)
    costs = [layer.full_rank * layer.bits_per_rank for layer in problem.layers.values()]
    excess = (0.5 * sum(costs) - 100) / problem.weights / 8
    slope = torch.tensor([cost / problem.weights / 8 for cost in costs]) * torch.tensor(excess).exp()
    assert torch.allclose(beyond - without, slope, rtol=1e-3)


@pytest.mark.parametrize("seed", range(25))
def test_hardened_ranks_never_exceed_the_budget(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    problem = small_problem(int(torch.randint(0, 8000, (1,), generator=generator)), seed % 3)
    cutoffs = {name: float(torch.rand(1, generator=generator)) for name in problem.layers}
    for hardening in ("ceil", "round"):
        for minimum in (0, 1):
            ranks = harden(cutoffs, problem, hardening, minimum)
            assert spent_bits(problem, ranks) <= problem.budget_bits
            assert all(0 <= ranks[name] <= problem.layers[name].full_rank for name in problem.layers)


def test_hardening_with_budget_to_spare() -> None:
    problem = small_problem(10**9)
    full = {name: layer.full_rank for name, layer in problem.layers.items()}
    cutoffs = {name: 2.4 / rank for name, rank in full.items()}
    assert set(harden(cutoffs, problem, "ceil", 0).values()) == {3}
    assert set(harden(cutoffs, problem, "round", 0).values()) == {2}
    assert harden(dict.fromkeys(full, 1.0), problem, "ceil", 1) == full
    exact = {name: 2 / rank for name, rank in full.items()}
    assert set(harden(exact, problem, "ceil", 0).values()) == {2}
    assert set(harden(dict.fromkeys(full, 0.01), problem, "round", 1).values()) == {1}


@pytest.mark.parametrize("search", [CoRa(iterations=3), replace(CoRa.paper(), iterations=3)])
def test_conformance(search: CoRa) -> None:
    check_search(search)
    assert SEARCHES["cora"] is CoRa


def test_same_seed_same_course() -> None:
    search = replace(CoRa.paper(), iterations=12, batch_size=8)
    first, second = search(small_problem(3000)), search(small_problem(3000))
    assert first == second
    assert [entry["iteration"] for entry in first.history] == list(range(1, 13))
    assert first.iterations == 12
    problem = small_problem(3000)
    other = search(replace(problem, context=replace(problem.context, seed=7)))
    assert [entry["loss"] for entry in other.history] != [entry["loss"] for entry in first.history]


def test_course_comes_down_to_the_budget() -> None:
    problem = small_problem(2500)
    history = replace(CoRa.paper(), iterations=120, gamma=20.0)(problem).history
    budget = 2500 / problem.weights
    assert history[0]["extra_bits"] > 1.5 * budget
    assert history[-1]["extra_bits"] < 1.1 * budget
    assert history[-1]["loss"] < history[0]["loss"]


def test_kept_ranks_are_no_worse_than_the_start() -> None:
    problem = small_problem(2500)
    composed = ComposedModel(problem.context.model, {**problem.layers, **problem.fixed})
    for name, weight in problem.fixed.items():
        composed.set_weight(name, weight)
    inputs = torch.cat(list(problem.context.samples.batches))

    def divergence(ranks: dict[str, int]) -> float:
        for name, rank in ranks.items():
            layer = problem.layers[name]
            composed.set_weight(name, compose(layer, (torch.arange(layer.full_rank) < rank).float()))
        with torch.no_grad():
            return float(problem.context.loss(composed.model(inputs), problem.context.model(inputs)))

    found = dict(CoRa(iterations=30)(problem).ranks)
    assert divergence(found) <= divergence(dict(Greedy()(problem).ranks)) * (1 + 1e-5)


def test_composed_model_leaves_the_original_alone() -> None:
    problem = small_problem(0)
    composed = ComposedModel(problem.context.model, problem.layers)
    weight = torch.zeros(6, 2, 3, 3, requires_grad=True)
    for name, layer in problem.layers.items():
        composed.set_weight(name, weight if name == "0" else layer.geometry.from_matrix(layer.coded))
    composed.model(problem.context.samples.batches[0]).sum().backward()
    assert weight.grad is not None
    assert all(parameter.grad is None and parameter.requires_grad for parameter in problem.context.model.parameters())
    assert "weight" in problem.context.model.get_submodule("0")._parameters


@pytest.mark.parametrize(
    "fields",
    [
        {"start": 0.0},
        {"start": 1.5},
        {"start": "cold"},
        {"hardening": "floor"},
        {"iterations": 0},
        {"batch_size": 0},
        {"order": 0},
        {"minimum": -1},
        {"learning_rate": 0.0},
        {"clip": 0.0},
        {"gamma": -1.0},
        {"gamma": float("nan")},
    ],
)
def test_bad_settings(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        CoRa(**fields)  # pyright: ignore
