"""Sums over sorted sets, k-means, quantiles and the grid against loops."""

from __future__ import annotations

import pytest
import torch
from reference.clusters import grid as slow_grid
from reference.clusters import optimal_kmeans

from corank.codecs.clusters import SortedSets, compacted, grid, kmeans, quantiles


def sets_of(rows: int, numbers: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, numbers), torch.rand(rows, numbers)


def squared_error(sets: torch.Tensor, weights: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    return ((sets[:, :, None] - levels[:, None, :]).square().amin(2) * weights).sum(1)


def test_sums_between_thresholds_by_masks() -> None:
    sets, weights = sets_of(3, 20)
    thresholds = torch.tensor([[-0.5, 0.1], [0.0, 3.0], [-9.0, torch.inf]]).double()
    found = SortedSets.of(sets, weights).within(thresholds)
    ends = torch.cat([torch.full((3, 1), -torch.inf), thresholds, torch.full((3, 1), torch.inf)], 1)
    for place in range(3):
        inside = (sets >= ends[:, place, None]) & (sets < ends[:, place + 1, None])
        for power in range(3):
            assert torch.allclose(found[power][:, place], (weights * sets**power * inside).sum(1).double(), atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_kmeans_is_near_the_optimum_and_a_fixed_point(count: int) -> None:
    sets, weights = sets_of(4, 18)
    levels = kmeans(SortedSets.of(sets, weights), count)
    lost = squared_error(sets.double(), weights.double(), levels)
    for row in range(4):
        best = optimal_kmeans(sets[row].tolist(), count, weights[row].tolist())
        assert best * (1 - 1e-6) <= float(lost[row]) <= best * 1.6 + 1e-9
    closest = (sets[:, :, None] - levels[:, None, :]).abs().argmin(2)
    for row in range(4):
        for place in range(count):
            mine = closest[row] == place
            if bool(mine.any()):
                mean = (sets[row] * weights[row])[mine].sum() / weights[row][mine].sum()
                assert float(levels[row, place]) == pytest.approx(float(mean), abs=1e-5)


def test_kmeans_of_few_values_is_exact() -> None:
    sets = torch.tensor([[3.0, -1.0, 3.0, 0.5, -1.0, 0.5]])
    levels = kmeans(SortedSets.of(sets, torch.ones(1, 6)), 4)
    assert float(squared_error(sets.double(), torch.ones(1, 6), levels)) == 0


def test_numbers_without_weight_are_not_seen() -> None:
    sets = torch.tensor([[0.0, 0.0, 0.0, 1.0, 2.0, 3.0]])
    found = SortedSets.of(sets, (sets != 0).float())
    assert quantiles(found, 3).tolist() == [[1.0, 2.0, 3.0]]
    assert kmeans(found, 3).tolist() == [[1.0, 2.0, 3.0]]


def test_quantiles_are_equal_steps_in_rank() -> None:
    sets = torch.randperm(101)[None].float()
    assert quantiles(SortedSets.of(sets, torch.ones(1, 101)), 5)[0].tolist() == pytest.approx(
        [0, 25, 50, 75, 100], abs=1
    )
    ends = quantiles(SortedSets.of(sets, torch.ones(1, 101)), 2)[0].tolist()
    assert ends == [0, 100]


@pytest.mark.parametrize("count", [3, 4, 7, 16, 60])
def test_grid_equals_loops(count: int) -> None:
    sets = torch.randn(2, 50) ** 3
    levels = grid(SortedSets.of(sets, torch.ones(2, 50)), count)
    for row in range(2):
        expected = slow_grid(sets[row].double().tolist(), count)
        assert sorted(set(levels[row].tolist())) == pytest.approx(expected, rel=1e-9)


def test_a_large_set_is_looked_at_evenly() -> None:
    numbers = torch.randn(1, (1 << 20) + 5)
    levels = kmeans(SortedSets.of(numbers, torch.ones_like(numbers)), 2)
    assert torch.allclose(levels, torch.tensor([[-1.0, 1.0]]).double() * (2 / torch.pi) ** 0.5, atol=0.01)


def test_compacted_repeats_only_the_last() -> None:
    levels = torch.tensor([[1.0, 1.0, 1.0, 2.0], [0.0, 1.0, 2.0, 3.0], [5.0, 5.0, 5.0, 5.0], [-1.0, -1.0, 0.0, 0.0]])
    expected = [[1.0, 2.0, 2.0, 2.0], [0.0, 1.0, 2.0, 3.0], [5.0] * 4, [-1.0, 0.0, 0.0, 0.0]]
    assert compacted(levels).tolist() == expected
