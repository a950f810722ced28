"""Quantiles as a codec: equal shares of the weights, the ends included."""

from __future__ import annotations

import pytest
import torch

from corank.codecs import Quantiles
from corank.testing import check_codec


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize(("per", "scaled"), [("row", False), ("layer", True), ("layer", False)])
def test_conformance(bits: int, per: str, scaled: bool) -> None:
    check_codec(Quantiles(bits, per, scaled))


def test_equal_shares_lie_between_neighbours() -> None:
    weight = torch.randn(1, 3001) ** 3
    levels = Quantiles(3, scaled=False).fit(weight).tensors()["levels"].float()
    assert float(levels[0]) == pytest.approx(float(weight.min()), rel=1e-3)
    assert float(levels[-1]) == pytest.approx(float(weight.max()), rel=1e-3)
    shares = torch.histogram(weight, levels)[0]
    assert bool(((shares - 3001 / 7).abs() < 6).all())
