"""Seeds of places in a run."""

from __future__ import annotations

import torch

from corank.calibration import generator_of, seed_of


def test_places_have_seeds_of_their_own_that_fit_torchs_generator() -> None:
    places = [(seed, step) for seed in (0, 1, 4096, 2**32 - 1) for step in range(50)]
    seeds = {seed_of(*place) for place in places}
    assert len(seeds) == len(places) and all(0 <= seed < 2**32 for seed in seeds)
    draws = {float(torch.rand(1, generator=generator_of(*place), dtype=torch.float64)) for place in places}
    assert len(draws) == len(places)


def test_the_same_place_has_the_same_seed() -> None:
    assert seed_of(3, "epoch", 1) == seed_of(3, "epoch", 1) == 1203199810
