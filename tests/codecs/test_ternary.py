"""Ternary weights: the exact optimum against trying everything, and TWN's rule."""

from __future__ import annotations

import pytest
import torch
from reference.levels import least_error, ternary

from corank.codecs import Ternary
from corank.errors import ConfigError
from corank.testing import check_codec


@pytest.mark.parametrize("group", [0, -1, 5])
@pytest.mark.parametrize("threshold", ["optimal", "twn"])
def test_conformance(group: int, threshold: str) -> None:
    check_codec(Ternary(group=group, threshold=threshold))


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_optimal_is_the_best_there_is(shift: float) -> None:
    weight = (torch.randn(6, 30) + shift) ** 3
    codebook = Ternary().fit(weight)
    lost = (codebook.values(codebook.nearest(weight)) - weight).square().sum(1)
    for row in range(6):
        scale, error = ternary(weight[row].tolist())
        assert float(codebook.scale[row, 0]) == pytest.approx(scale, rel=1e-3)
        assert float(lost[row]) == pytest.approx(error, rel=1e-5)
        largest = float(weight[row].abs().max())
        searched = least_error(weight[row].tolist(), [-1.0, 0.0, 1.0], [largest * n / 400 for n in range(1, 401)])
        assert float(lost[row]) <= searched * (1 + 1e-5)


def test_the_paper_rule_for_the_scale() -> None:
    weight = torch.tensor([[1.0, -0.9, 0.1, 0.0, -0.2, 0.5]])  # mean magnitude 0.45: those above 0.315
    scale = float(Ternary(threshold="twn").fit(weight).scale)
    assert scale == pytest.approx((1.0 + 0.9 + 0.5) / 3, rel=1e-3)


def test_optimal_loses_no_more_than_the_rule() -> None:
    weight = torch.randn(20, 100)
    lost = []
    for threshold in ("optimal", "twn"):
        codebook = Ternary(threshold=threshold).fit(weight)
        lost.append((codebook.values(codebook.nearest(weight)) - weight).square().sum(1))
    assert bool((lost[0] <= lost[1] * (1 + 1e-5)).all())


def test_three_values_and_zero_among_them() -> None:
    weight = torch.randn(3, 40)
    codebook = Ternary().fit(weight)
    codes = codebook.nearest(weight)
    assert codebook.size == 3 and set(codes.unique().tolist()) == {0, 1, 2}
    assert not codebook.values(torch.ones_like(codes)).any()
    with pytest.raises(ConfigError, match="'optimal' or 'twn'"):
        Ternary(threshold="best")
