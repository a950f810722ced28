"""The sample that the range of inputs is fitted to."""

from __future__ import annotations

import torch

from corank.statistics import InputValues


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_keeps_the_ends_and_an_even_sample_of_bounded_size() -> None:
    found = InputValues(4)
    batches = [torch.randn(50, 3, 40, 40) + number for number in range(3)]
    for number, batch in enumerate(batches):
        found.update(number, batch, draws(number))
    everything = torch.cat([batch.flatten() for batch in batches])
    assert found.ends == (float(everything.min()), float(everything.max()))
    assert found.values.numel() == 3 * (1 << 17) // 4  # the fourth batch never came by
    assert (
        abs(float(found.values.mean()) - 1) < 0.02 and abs(float(found.values.std()) - float(everything.std())) < 0.02
    )
    assert bool(torch.isin(found.values[:1000], everything).all())


def test_equal_seeds_draw_the_same() -> None:
    batch = torch.randn(9, 100)
    samples = []
    for seed in (1, 1, 2):
        found = InputValues(1)
        found.update(0, batch, draws(seed))
        samples.append(found.values)
    assert torch.equal(samples[0], samples[1]) and not torch.equal(samples[0], samples[2])


def test_a_shared_layers_later_calls_widen_the_ends() -> None:
    found = InputValues(1)
    found.update(0, torch.ones(5), draws(0))
    found.update(0, torch.tensor([-2.0, 7.0]), draws(0))
    assert found.ends == (-2.0, 7.0) and bool((found.values == 1).all())


def test_nothing_seen() -> None:
    assert InputValues(2).ends == (0.0, 0.0) and InputValues(2).values.numel() == 0
