"""Clipping thresholds against the same from their definition, one bin at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from corank.layers import fit_inputs
from corank.statistics.input_ranges import divergences, threshold


def by_definition(counts: list[float], bins: int, levels: int, mass: bool) -> float:
    """Slow and plain."""
    inside = counts[:bins]
    wanted = [*inside[:-1], inside[-1] + sum(counts[bins:])]
    given = [0.0] * bins
    for level in range(levels):
        of = [place for place in range(bins) if place * levels // bins == level and inside[place] > 0]
        for place in of:
            given[place] = sum(inside[one] for one in of) / len(of)
    all_p, all_q = sum(wanted), sum(given)
    if mass:
        both = [(p, q) for p, q in zip(wanted, given, strict=True) if p > 0 and q > 0]
        return sum(p * (math.log(all_p * p) - math.log(all_q * q)) for p, q in both) / all_p
    p, q = smoothed([one / all_p for one in wanted]), smoothed([one / all_q for one in given])
    return sum(one * math.log(one / other) for one, other in zip(p, q, strict=True))


def smoothed(shares: list[float]) -> list[float]:
    empty = sum(share == 0 for share in shares)
    less = 1e-4 * empty / max(1, len(shares) - empty)
    return [1e-4 if share == 0 else max(share - less, 1e-8) for share in shares]


@pytest.mark.parametrize("mass", [False, True])
@pytest.mark.parametrize("levels", [8, 128])
def test_divergences_are_those_of_the_definition(mass: bool, levels: int) -> None:
    generator = np.random.default_rng(0)
    counts = np.floor(300 * np.exp(-np.arange(160) / 12.0) * generator.random(160))
    found = divergences(counts, levels, mass)
    assert len(found) == 33
    for place in (0, 7, 32):
        assert found[place] == pytest.approx(by_definition(counts.tolist(), 128 + place, levels, mass), rel=1e-9)


def test_without_a_tail_both_forms_are_the_textbook_one() -> None:
    """All of the mass inside, and no empty bin: the penalty is log(1)."""
    counts = np.arange(1.0, 129.0)
    p = counts / counts.sum()
    q = np.repeat(counts.reshape(32, 4).mean(1), 4) / counts.sum()
    expected = (p * np.log(p / q)).sum()
    for mass in (False, True):
        assert divergences(counts, 32, mass)[-1] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_the_penalty_widens_the_range(seed: int) -> None:
    torch.manual_seed(seed)
    values = torch.distributions.Laplace(0.0, 1.0).sample((100_000,))
    narrow, wide = (threshold(values, 128, mass) for mass in (False, True))
    assert narrow < wide <= float(values.abs().max())


@pytest.mark.parametrize("kind", ["kl", "kl-mass", "minmax"])
def test_ranges_of_inputs(kind: str) -> None:
    torch.manual_seed(0)
    values = torch.randn(20_000).relu()
    high = float(values.max())
    found = fit_inputs(values, 0.0, high, 8, kind)
    assert not found.signed and float(found.step) * 255 <= high * 1.001
    if kind == "minmax":
        assert float(found.step) * 255 == pytest.approx(high, rel=1e-3)
    both = fit_inputs(torch.randn(20_000), -4.0, 4.0, 6, kind)
    assert both.signed and 28 <= both.offset <= 36


def test_inputs_that_are_all_zero() -> None:
    assert threshold(torch.zeros(100), 128, False) == 0
    found = fit_inputs(torch.zeros(100), 0.0, 0.0, 8, "kl")
    assert torch.equal(found(torch.zeros(3)), torch.zeros(3))


@pytest.mark.parametrize("mass", [False, True])
def test_zeros_of_a_relu_do_not_narrow_the_range(mass: bool) -> None:
    values = torch.randn(20000, generator=torch.Generator().manual_seed(0)).relu()
    assert threshold(values, 128, mass) > 2.0
    assert threshold(values, 128, mass) == threshold(values[values > 0], 128, mass)
