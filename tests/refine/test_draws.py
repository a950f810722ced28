"""Batches of a refinement: those of one generator, whichever is asked for first, and whole in parts."""

from __future__ import annotations

import torch

from corank.calibration import Samples
from corank.refine.draws import Draws


def test_batches_are_those_of_the_generator_from_any_step_on() -> None:
    data = torch.arange(20, dtype=torch.float32)[:, None]
    samples = Samples.of(data, 20, 8)
    drawn, draws = samples.draws(6, torch.Generator().manual_seed(3)), Draws(samples, 6, 3)
    expected = [data[next(drawn)] for _ in range(7)]
    for step, batch in enumerate(expected):
        assert draws.count(step) == len(batch) == 6
        assert torch.equal(draws.part(step, 0, 6)[0], batch)
    later = Draws(samples, 6, 3)
    assert torch.equal(later.part(5, 2, 3)[0], expected[5][2:5])
    assert torch.equal(later.part(6, 0, 6)[0], expected[6]) and later.part(6, 0, 6)[1] is None


def test_batches_that_cannot_be_stacked_come_one_a_step() -> None:
    samples = Samples.of([torch.zeros(3, 4), torch.ones(2, 5)], 5)
    draws = Draws(samples, 64, 0)
    assert sorted(draws.count(step) for step in range(2)) == [2, 3]
