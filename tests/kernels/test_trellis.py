"""Paths through the trellis: the cheapest of all, alike with the kernel and without."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest

from corank.errors import CorankWarning
from corank.kernels import trellis
from corank.kernels.build import NotBuiltError
from corank.kernels.trellis import MACHINES, Chain, cheapest_path, places_in_grid, visited_states


def drawn(count: int, most: int, spread: float, pruned: bool = False) -> tuple[Chain, np.ndarray]:
    draw = np.random.default_rng(count + most)
    zero_only = draw.random(count) < 0.3 if pruned else None
    chain = Chain(draw.standard_normal(count) * spread, draw.random(count) + 0.1, zero_only)
    return chain, draw.random((2, 2 * most + 1)) * 0.5


def cost(chain: Chain, price: np.ndarray, values: np.ndarray, states: int) -> float:
    visited = visited_states(values[:, None], states)
    assert visited is not None
    grids = np.array(MACHINES[states].grids)[visited[:, 0]]
    most = price.shape[1] // 2
    return float((chain.weights * (chain.targets - values) ** 2 + price[grids, values + most]).sum())


@pytest.mark.parametrize("states", sorted(MACHINES))
def test_no_other_path_costs_less(states: int) -> None:
    chain, price = drawn(5, 3, 1.5)
    price = price * 0 + 0.2 * np.abs(np.arange(-3, 4))  # dearer the farther from zero: what is looked at then suffices
    values, _ = cheapest_path(chain, price, states)
    every = [np.array(other, np.int32) for other in itertools.product(range(-3, 4), repeat=5)]
    paths = [other for other in every if visited_states(other[:, None], states) is not None]
    least = min(cost(chain, price, other, states) for other in paths)
    assert cost(chain, price, values, states) == pytest.approx(least, abs=1e-12)


@pytest.mark.parametrize("states", sorted(MACHINES))
@pytest.mark.parametrize(("spread", "pruned"), [(0.5, False), (3.0, True), (40.0, False)])
def test_the_kernel_and_numpy_give_the_same(
    states: int, spread: float, pruned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trellis._library() is None:
        pytest.skip("no C++ compiler")
    chain, price = drawn(400, 15, spread, pruned)
    values, visited = cheapest_path(chain, price, states)
    monkeypatch.setattr(trellis, "_library", lambda: None)
    again = cheapest_path(chain, price, states)
    assert np.array_equal(values, again[0]) and np.array_equal(visited, again[1])
    found = visited_states(values[:, None], states)
    assert found is not None and np.array_equal(found[:, 0], visited)
    assert chain.zero_only is None or not values[chain.zero_only].any()
    assert np.abs(values).max() <= 15


def test_grids() -> None:
    values = np.array([-6, -4, 0, 2, 8])
    assert places_in_grid(values, np.zeros(5, int)).tolist() == [-3, -2, 0, 1, 4]
    values = np.array([-5, -1, 0, 1, 7])
    assert places_in_grid(values, np.ones(5, int)).tolist() == [-3, -1, 0, 1, 4]
    for machine in MACHINES.values():
        # Every state is reached from two, and half of the states read each grid.
        assert sorted(state for pair in machine.leads for state in pair) == sorted([*range(len(machine.grids))] * 2)
        assert sum(machine.grids) * 2 == len(machine.grids)


def test_codes_off_every_path_are_told() -> None:
    assert visited_states(np.array([[1]]), 4) is None  # the first state reads even multiples
    assert visited_states(np.array([[2], [1]]), 4) is not None
    assert visited_states(np.array([[2], [2]]), 4) is None


def test_a_chain_of_nothing() -> None:
    values, visited = cheapest_path(Chain(np.zeros(0), np.zeros(0)), np.zeros((2, 7)), 4)
    assert len(values) == len(visited) == 0


def test_without_a_compiler_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> None:
        raise NotBuiltError("no C++ compiler was found")

    monkeypatch.setattr(trellis, "built", fails)
    trellis._library.cache_clear()
    try:
        with pytest.warns(CorankWarning, match="no C\\+\\+ compiler"):
            cheapest_path(*drawn(3, 3, 1.0), 4)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cheapest_path(*drawn(3, 3, 1.0), 4)
    finally:
        trellis._library.cache_clear()
