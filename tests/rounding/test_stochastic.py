"""Stochastic rounding: right on average, never off its two neighbours."""

from __future__ import annotations

import pytest
import torch

from corank.codecs import DenseShift, Quantiles, Uniform
from corank.errors import ConfigError
from corank.rounding import Stochastic
from corank.testing import check_rounder


def test_conformance() -> None:
    check_rounder(Stochastic())
    check_rounder(Stochastic(7), [Quantiles(3), DenseShift(2)])


@pytest.mark.parametrize("codec", [Quantiles(2, scaled=False), Quantiles(3, "row", False), Uniform(3)], ids=str)
def test_every_weight_is_its_own_expectation(codec: Quantiles | Uniform) -> None:
    """Over 4000 draws, each weight's mean lies within five of its standard errors."""
    weight = torch.randn(3, 20)
    book = codec.fit(weight)
    below, above = (book.values(codes) for codes in book.neighbours(weight))
    draws = [book.values(Stochastic(seed)(weight, book, {})) for seed in range(4000)]
    mean = torch.stack(draws).mean(0)
    clamped = weight.clamp(below.amin(1, keepdim=True), above.amax(1, keepdim=True))  # ends are of fp16
    deviation = ((clamped - below) * (above - clamped)).clamp(min=0).sqrt() / 4000**0.5
    assert bool(((mean - clamped).abs() <= 5 * deviation + 2e-3 * weight.abs() + 1e-6).all())


def test_only_neighbours_are_chosen_and_values_stay() -> None:
    weight = torch.randn(5, 50)
    book = Quantiles(3).fit(weight)
    codes, (below, above) = Stochastic(1)(weight, book, {}), book.neighbours(weight)
    assert bool(((codes == below) | (codes == above)).all())
    exact = book.values(codes)
    assert torch.equal(book.values(Stochastic(2)(exact, book, {})), exact)


def test_seeds() -> None:
    weight = torch.randn(4, 40)
    book = Uniform(2).fit(weight)
    assert torch.equal(Stochastic(3)(weight, book, {}), Stochastic(3)(weight, book, {}))
    assert not torch.equal(Stochastic(3)(weight, book, {}), Stochastic(4)(weight, book, {}))
    for seed in (-1, 1.5, True, 2**63):
        with pytest.raises(ConfigError, match="seed"):
            Stochastic(seed)  # pyright: ignore[reportArgumentType]
