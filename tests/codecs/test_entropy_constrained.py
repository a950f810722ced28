"""ECSQ: never worse than k-means in its own cost, near the best there is, and cheaper to store."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from reference.clusters import best_lagrangian, lagrangian, of_choice

from corank.codecs import EntropyConstrained, KMeans, RowLevels
from corank.errors import ConfigError
from corank.testing import check_codec


def price_of(row: torch.Tensor, bits: int, rate: float) -> float:
    """The price of a nat, as the codec sets it."""
    book = KMeans(bits, "row", False).fit(row)
    return rate * float((book.values(book.nearest(row)) - row).square().mean())


def entropy(codes: torch.Tensor) -> float:
    share = torch.bincount(codes.flatten().long()).double() / codes.numel()
    return float(-torch.special.xlogy(share, share).sum())


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize(("per", "scaled"), [("row", False), ("layer", True), ("layer", False)])
@pytest.mark.parametrize("rate", [0.0, 1.0, 30.0])
def test_conformance(bits: int, per: str, scaled: bool, rate: float) -> None:
    check_codec(EntropyConstrained(bits, per, scaled, rate=rate))


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("rate", [0.2, 1.0, 5.0, 50.0])
def test_the_lagrangian_is_not_worse_than_that_of_k_means(bits: int, rate: float) -> None:
    for row in (torch.randn(1, 200), torch.randn(1, 200) ** 3, torch.rand(1, 60)):
        price = price_of(row, bits, rate)
        ours = EntropyConstrained(bits, "row", False, rate=rate).fit(row)
        plain = KMeans(bits, "row", False).fit(row)
        numbers = row[0].tolist()
        codes = ours.nearest(row)[0].tolist()
        found = of_choice(numbers, cast(RowLevels, ours).levels[0].tolist(), codes, price)
        distinct = cast(RowLevels, plain).levels[0].unique().tolist()
        assert found <= lagrangian(numbers, distinct, price) * (1 + 1e-4)


@pytest.mark.parametrize("rate", [0.5, 2.0])
def test_near_the_best_of_all_ways_to_cut(rate: float) -> None:
    for _ in range(3):
        row = torch.randn(1, 14)
        price = price_of(row, 2, rate)
        book = EntropyConstrained(2, "row", False, rate=rate).fit(row)
        levels = cast(RowLevels, book).levels[0].tolist()
        found = of_choice(row[0].tolist(), levels, book.nearest(row)[0].tolist(), price)
        best = best_lagrangian(row[0].tolist(), 4, price)
        assert best * (1 - 1e-3) <= found <= 1.25 * best


def test_a_higher_price_buys_a_lower_entropy_for_more_error() -> None:
    weight = torch.randn(1, 5000)
    errors, entropies = [], []
    for rate in (0.0, 1.0, 4.0, 20.0):
        book = EntropyConstrained(4, scaled=False, rate=rate).fit(weight)
        codes = book.nearest(weight)
        errors.append(float((book.values(codes) - weight).square().mean()))
        entropies.append(entropy(codes))
    assert errors == sorted(errors) and entropies == sorted(entropies, reverse=True)
    assert entropies[-1] < 0.75 * entropies[0]


def test_without_a_price_it_is_k_means() -> None:
    weight = torch.randn(2, 300)
    ours, plain = EntropyConstrained(3, rate=0.0).fit(weight), KMeans(3).fit(weight)
    lost = [(book.values(book.nearest(weight)) - weight).square().sum() for book in (ours, plain)]
    assert float(lost[0]) <= float(lost[1]) * 1.001


def test_bad_settings() -> None:
    for rate in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="rate"):
            EntropyConstrained(rate=rate)
