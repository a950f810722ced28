"""Additive powers of two against the authors' way to deal exponents."""

from __future__ import annotations

import pytest
import torch
from reference.levels import additive_powers

from corank.codecs import AdditivePowerOfTwo, PowerOfTwo
from corank.errors import ConfigError
from corank.testing import check_codec


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("power_of_two_scale", [False, True])
def test_conformance(bits: int, power_of_two_scale: bool) -> None:
    check_codec(AdditivePowerOfTwo(bits, power_of_two_scale=power_of_two_scale))


@pytest.mark.parametrize("bits", range(2, 8))
def test_levels_are_those_of_the_authors(bits: int) -> None:
    levels = AdditivePowerOfTwo(bits).levels()
    magnitudes = additive_powers(bits)
    assert len(magnitudes) == 2 ** (bits - 1) and len(levels) == 2**bits - 1
    assert torch.allclose(levels[len(magnitudes) - 1 :], torch.tensor(magnitudes))
    assert torch.equal(levels, -levels.flip(0))


@pytest.mark.parametrize("bits", [2, 3])
def test_few_bits_are_single_powers(bits: int) -> None:
    assert torch.equal(AdditivePowerOfTwo(bits).levels(), PowerOfTwo(bits).levels())


@pytest.mark.parametrize("bits", range(4, 8))
def test_every_level_is_a_sum_of_so_few_powers(bits: int) -> None:
    levels = AdditivePowerOfTwo(bits).levels()
    magnitudes = levels[levels > 0]
    unit = additive_powers(bits)[1]  # the least one is a single power
    whole = (magnitudes / unit).round().int()
    assert torch.allclose(whole * unit, magnitudes)
    assert max(bin(number).count("1") for number in whole.tolist()) == bits // 2


def test_more_of_the_range_is_covered_than_by_single_powers() -> None:
    weight = torch.randn(20, 100)
    lost = []
    for codec in (PowerOfTwo(5), AdditivePowerOfTwo(5)):
        codebook = codec.fit(weight)
        lost.append(float((codebook.values(codebook.nearest(weight)) - weight).square().sum()))
    assert lost[1] < 0.5 * lost[0]


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="2 to 7"):
        AdditivePowerOfTwo(8)
