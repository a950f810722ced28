"""Powers of two: the values, both ways to the nearest, and shifts that replace multiplications."""

from __future__ import annotations

import pytest
import torch
from reference.levels import power_of_two

from corank.codecs import PowerOfTwo
from corank.errors import ConfigError
from corank.testing import check_codec


@pytest.mark.parametrize("bits", [2, 4, 7])
@pytest.mark.parametrize("nearest", ["value", "log"])
@pytest.mark.parametrize("power_of_two_scale", [False, True])
def test_conformance(bits: int, nearest: str, power_of_two_scale: bool) -> None:
    check_codec(PowerOfTwo(bits, 5, nearest, power_of_two_scale))


@pytest.mark.parametrize("bits", range(2, 8))
@pytest.mark.parametrize("group", [0, -1, 7])
def test_every_value_is_zero_or_has_the_mantissa_of_a_power_of_two(bits: int, group: int) -> None:
    weight = torch.randn(4, 20) * 10 ** torch.linspace(-4, 3, 20)
    codebook = PowerOfTwo(bits, group, power_of_two_scale=True).fit(weight)
    values = torch.cat([codebook.values(torch.full((4, 20), code, dtype=torch.uint8)) for code in range(codebook.size)])
    assert bool((values[values != 0].abs().frexp().mantissa == 0.5).all())
    levels = PowerOfTwo(bits).levels()
    assert len(levels) == 2**bits - 1 and bool((levels[levels != 0].abs().frexp().mantissa == 0.5).all())
    assert float(levels.max()) == 1.0 and torch.equal(levels, -levels.flip(0))


@pytest.mark.parametrize("bits", range(2, 7))
@pytest.mark.parametrize("nearest", ["value", "log"])
def test_equals_loops(bits: int, nearest: str) -> None:
    weight = torch.randn(3, 40) * torch.logspace(-3, 0, 40)
    codebook = PowerOfTwo(bits, nearest=nearest).fit(weight)
    decoded = codebook.values(codebook.nearest(weight)) / codebook.scale
    for row in range(3):
        for column in range(40):
            number = float(weight[row, column] / codebook.scale[row, 0])
            assert float(decoded[row, column]) == pytest.approx(power_of_two(number, bits, nearest == "log"), rel=1e-6)


def test_the_two_ways_switch_where_they_should() -> None:
    weight = torch.tensor([[1.0, -1.0, 0.72, 0.70, 0.76, 0.74, 0.5, 0.25, 0.37, 0.35, 0.38, 0.13, 0.12]])
    scales = torch.ones(1)
    by_value, by_log = (PowerOfTwo(3, nearest=way).codebook({"scale": scales}, 1, 13) for way in ("value", "log"))
    found = by_value.values(by_value.nearest(weight))[0].tolist()
    assert found == [1, -1, 0.5, 0.5, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.5, 0.25, 0]
    found = by_log.values(by_log.nearest(weight))[0].tolist()
    assert found == [1, -1, 1, 0.5, 1, 1, 0.5, 0.25, 0.5, 0.25, 0.5, 0.25, 0]


@pytest.mark.parametrize("nearest", ["value", "log"])
def test_rounding_is_odd_and_done_once(nearest: str) -> None:
    weight = torch.randn(5, 30)
    codebook = PowerOfTwo(4, nearest=nearest).fit(weight)
    once = codebook.values(codebook.nearest(weight))
    assert torch.equal(codebook.values(codebook.nearest(once)), once)
    assert torch.equal(codebook.values(codebook.nearest(-weight)), -once)


def test_shifts_and_additions_give_the_convolution_of_whole_inputs() -> None:
    codebook = PowerOfTwo(4, power_of_two_scale=True).fit(torch.randn(6, 9))
    weight = codebook.values(codebook.nearest(torch.randn(6, 9)))
    inputs = torch.randint(-128, 128, (9,))
    exponents = torch.where(weight == 0, 0, weight.abs().frexp().exponent - 1)
    lowest = int(exponents.min())
    shifted = inputs << (exponents - lowest)  # whole numbers in units of 2^lowest
    total = (torch.where(weight < 0, -shifted, shifted) * (weight != 0)).sum(1)
    assert torch.equal(total.double() * 2.0**lowest, weight.double() @ inputs.double())


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="'value' or 'log'"):
        PowerOfTwo(nearest="ceiling")
    for bits in (1, 8):
        with pytest.raises(ConfigError, match="2 to 7"):
            PowerOfTwo(bits)
