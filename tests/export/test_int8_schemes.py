"""Where int8 levels lie, scheme by scheme."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from corank.errors import ConfigError
from corank.export.int8_schemes import SCHEMES, Profile, clipped, rounded_weight, scheme_range

ENDS = [(0.0, 3.7), (-1.3, 2.9), (-5.0, 0.1), (0.4, 0.9), (-2.0, -1.0)]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("low", "high"), ENDS)
def test_levels_cover_the_range_and_one_is_exactly_zero(scheme: str, low: float, high: float) -> None:
    start, end = scheme_range(scheme, low, high)
    step = (end - start) / 255
    zero = round(-start / step)
    assert start <= min(low, 0.0) + 1e-12 and end >= max(high, 0.0) - 1e-12
    assert 0 <= zero <= 255
    if scheme == "asymmetric":
        assert (start, end) == (min(low, 0.0), max(high, 0.0))
    elif scheme == "symmetric-uint8" and low >= 0:
        assert (start, zero) == (0.0, 0) and step == pytest.approx(high / 255)
    else:
        assert zero == 128 and start == pytest.approx(-128 * step)


@pytest.mark.parametrize(("low", "high"), ENDS)
def test_power_of_two_steps_are_powers_and_less_than_twice_the_symmetric_one(low: float, high: float) -> None:
    start, end = scheme_range("symmetric", low, high)
    step = (end - start) / 255
    start, end = scheme_range("power-of-two", low, high)
    power = (end - start) / 255
    assert math.frexp(power)[0] == 0.5 and step * (1 - 1e-12) <= power < 2 * step


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("per_channel", [False, True])
def test_weights_are_symmetric_codes_of_one_step_or_one_a_row(scheme: str, per_channel: bool) -> None:
    factors = torch.tensor([1.0, 2.0, 4.0, 8.0, 0.0]).view(-1, 1, 1, 1)
    weight = factors * torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    steps, values = rounded_weight(weight, scheme, per_channel, 127)
    assert steps.shape == ((5,) if per_channel else (1,)) and values.shape == weight.shape
    wide = torch.from_numpy(np.broadcast_to(steps.reshape(-1, 1, 1, 1), (5, 1, 1, 1)).copy())
    codes = values / wide
    assert torch.equal(codes.round(), codes.round().clamp(-127, 127)) and bool(
        (codes - codes.round()).abs().max() < 1e-4
    )
    assert bool(((values - weight).abs() <= wide * 0.5001).all())
    assert torch.equal(values[4], torch.zeros_like(values[4]))
    if scheme == "power-of-two":
        assert all(math.frexp(float(step))[0] == 0.5 for step in steps)


def test_clipping_leaves_a_rare_outlier_out() -> None:
    values = np.abs(np.random.RandomState(0).randn(100_000))
    values[0] = 60.0
    counts = np.histogram(values, 1000, (0.0, 60.0))[0].astype(np.float64)
    low, high = clipped(Profile(-3.0, 60.0, counts))
    assert 4.0 < high < 30.0 and low == -3.0
    assert clipped(Profile(0.0, 0.0, np.zeros(1000))) == (0.0, 0.0)


def test_a_scheme_that_is_none() -> None:
    with pytest.raises(ConfigError, match="one of asymmetric"):
        scheme_range("odd", 0.0, 1.0)
