"""StatsQ against its formula; symmetric, without zero, as many values as codes."""

from __future__ import annotations

import pytest
import torch
from reference.levels import statsq

from corank.codecs import StatsQ
from corank.errors import ConfigError
from corank.testing import check_codec


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [0, -1, 5])
def test_conformance(bits: int, group: int) -> None:
    check_codec(StatsQ(bits, group))


@pytest.mark.parametrize("bits", range(2, 9))
def test_equals_its_formula(bits: int) -> None:
    weight = torch.randn(4, 50)
    codebook = StatsQ(bits).fit(weight)
    assert torch.allclose(codebook.scale, 2 * weight.abs().mean(1, keepdim=True), rtol=1e-3)
    decoded = codebook.values(codebook.nearest(weight))
    scales = codebook.scale[:, 0].tolist()
    expected = [statsq(row.tolist(), bits, scale) for row, scale in zip(weight, scales, strict=True)]
    assert torch.allclose(decoded, torch.tensor(expected), rtol=1e-5)


@pytest.mark.parametrize("bits", range(2, 9))
def test_values_are_symmetric_distinct_and_not_zero(bits: int) -> None:
    levels = StatsQ(bits).levels()
    assert len(set(levels.tolist())) == 2**bits
    assert torch.equal(levels, -levels.flip(0)) and bool((levels != 0).all())
    if bits == 2:
        assert levels.tolist() == [-0.75, -0.25, 0.25, 0.75]


def test_scales_with_the_weight() -> None:
    weight = torch.randn(3, 40)
    for factor in (0.25, 2.0, 64.0):
        one, other = StatsQ(3).fit(weight), StatsQ(3).fit(weight * factor)
        decoded = other.values(other.nearest(weight * factor))
        assert torch.equal(decoded, factor * one.values(one.nearest(weight)))


def test_one_bit_is_refused() -> None:
    with pytest.raises(ConfigError, match="2 to 8"):
        StatsQ(1)
