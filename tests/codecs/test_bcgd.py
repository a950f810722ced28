"""BCGD's levels against the authors' rules for 1, 2 and 4 bits."""

from __future__ import annotations

import pytest
import torch
from reference.levels import bcgd

from corank.codecs import Bcgd
from corank.errors import ConfigError
from corank.testing import check_codec


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("group", [-1, 0, 5])
def test_conformance(bits: int, group: int) -> None:
    check_codec(Bcgd(bits, group))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_scales_are_those_of_the_rules(bits: int) -> None:
    weight = torch.randn(4, 50)
    codebook = Bcgd(bits, group=0).fit(weight)
    unit = codebook.scale[:, 0]
    for row in range(4):
        values = {abs(value) for value in bcgd(weight[row].tolist(), bits)} - {0.0}
        assert float(unit[row]) == pytest.approx(min(values) / round(min(values) / float(unit[row])), rel=1e-3)


@pytest.mark.parametrize("bits", [1, 4])
def test_the_whole_rule_where_it_rounds_to_the_closest(bits: int) -> None:
    row = torch.randn(1, 80)
    codebook = Bcgd(bits).fit(row)
    decoded = codebook.values(codebook.nearest(row))[0]
    expected = torch.tensor(bcgd(row[0].tolist(), bits))
    step = float(codebook.scale)
    differ = (decoded - expected).abs() > 0.01 * step  # theirs rounds with the scale before it is refitted
    assert float(differ.float().mean()) < 0.15
    lost, theirs = (decoded - row[0]).square().sum(), (expected - row[0]).square().sum()
    assert float(lost) <= float(theirs) * 1.001


def test_one_scale_a_weight_unless_asked() -> None:
    assert Bcgd().fit(torch.randn(3, 5)).scale.shape == (1, 1)
    assert Bcgd(group=0).fit(torch.randn(3, 5)).scale.shape == (3, 1)


@pytest.mark.parametrize("bits", range(1, 9))
def test_levels(bits: int) -> None:
    levels = Bcgd(bits).levels()
    assert len(levels) == max(2, 2**bits - 1) and float(levels[-1]) == max(1, 2 ** (bits - 1) - 1)
    assert bool((levels == 0).any()) is (bits > 1)


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="1 to 8"):
        Bcgd(0)
