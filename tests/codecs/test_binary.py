"""Binary weights: two values a row, their mean magnitude, the best such scale."""

from __future__ import annotations

import pytest
import torch
from reference.levels import least_error

from corank.codecs import Binary
from corank.errors import ConfigError
from corank.testing import check_codec


@pytest.mark.parametrize("group", [0, -1, 5])
def test_conformance(group: int) -> None:
    check_codec(Binary(group=group))


def test_every_row_has_two_values_of_its_mean_magnitude() -> None:
    weight = torch.randn(5, 40)
    weight[:, ::5] = 0
    codebook = Binary().fit(weight)
    decoded = codebook.values(codebook.nearest(weight))
    assert torch.allclose(decoded.abs(), weight.abs().mean(1, keepdim=True).expand(5, 40), rtol=1e-3)
    assert torch.equal(decoded > 0, weight >= 0)


def test_no_scale_loses_less() -> None:
    weight = torch.randn(3, 25)
    codebook = Binary().fit(weight)
    lost = (codebook.values(codebook.nearest(weight)) - weight).square().sum(1)
    for row in range(3):
        best = least_error(weight[row].tolist(), [-1.0, 1.0], [step / 500 for step in range(1, 1500)])
        assert float(lost[row]) <= best * (1 + 1e-5)


def test_the_dot_product_is_that_of_the_signs_by_counting() -> None:
    weight, inputs = torch.randn(4, 64), torch.where(torch.randn(64) < 0, -1.0, 1.0)
    codebook = Binary().fit(weight)
    codes = codebook.nearest(weight)
    differing = (codes.bool() ^ (inputs > 0)).sum(1)  # XNOR and popcount
    counted = codebook.scale[:, 0] * (64 - 2 * differing)
    assert torch.allclose(codebook.values(codes) @ inputs, counted, rtol=1e-5)


def test_size() -> None:
    assert Binary().size_bits(10, 100) == 1000 + 160
    with pytest.raises(ConfigError, match="bits=2: Binary takes 1"):
        Binary(2)
