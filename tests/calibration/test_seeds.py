"""Seeds of places in a run."""

from __future__ import annotations

import torch

from corank.calibration import generator_of, seed_of
from corank.calibration.seeds import shuffled_in_turn


def test_places_have_seeds_of_their_own_that_fit_torchs_generator() -> None:
    places = [(seed, step) for seed in (0, 1, 4096, 2**32 - 1) for step in range(50)]
    seeds = {seed_of(*place) for place in places}
    assert len(seeds) == len(places) and all(0 <= seed < 2**32 for seed in seeds)
    draws = {float(torch.rand(1, generator=generator_of(*place), dtype=torch.float64)) for place in places}
    assert len(draws) == len(places)


def test_the_same_place_has_the_same_seed() -> None:
    assert seed_of(3, "epoch", 1) == seed_of(3, "epoch", 1) == 1203199810


def test_groups_are_read_in_turn_and_each_sample_once() -> None:
    groups = torch.arange(1000) // 50
    order = shuffled_in_turn(groups, generator_of(0), buffer=150)
    assert order.sort()[0].tolist() == list(range(1000))
    windows = [groups[order[start : start + 150]].unique() for start in range(0, 1000, 150)]
    assert [len(window) for window in windows] == [3] * 6 + [2] and len(torch.cat(windows).unique()) == 20
    assert groups[order[:150]].tolist() != sorted(groups[order[:150]].tolist())
    assert torch.equal(order, shuffled_in_turn(groups, generator_of(0), buffer=150))
    assert not torch.equal(order, shuffled_in_turn(groups, generator_of(1), buffer=150))


def test_groups_of_any_numbers_and_sizes() -> None:
    groups = torch.tensor([7, 3, 7, 9, 3, 7])
    found = shuffled_in_turn(groups, generator_of(4), buffer=1)
    assert found.sort()[0].tolist() == list(range(6))
    runs = groups[found].unique_consecutive()
    assert len(runs) == 3
    whole = {tuple(shuffled_in_turn(groups, generator_of(seed), buffer=100).tolist()) for seed in range(50)}
    assert len(whole) > 30
