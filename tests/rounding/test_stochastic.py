"""Stochastic rounding: right on average, never off its two neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.codecs import Codebook, DenseShift, Quantiles, Uniform
from corank.coding.layer import code_layer
from corank.errors import ConfigError
from corank.plan import LayerPlan, Plan
from corank.rounding import ROUNDERS, Rounder, Stochastic
from corank.statistics import Gram, LayerStatistics
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


def test_every_layer_and_round_has_draws_of_its_own() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(16, 16), nn.Linear(16, 16)
    second.load_state_dict(first.state_dict())
    small = corank.quantize(
        nn.Sequential(first, nn.ReLU(), second), torch.randn(32, 16),
        plan=Plan({name: LayerPlan(Uniform(2), Stochastic()) for name in ("0", "2")}),
    )  # fmt: skip
    codes = [small.get_submodule(name).code().weight.codes for name in ("0", "2")]
    assert not torch.equal(*codes)
    parts = [Stochastic().drawing_for("a"), Stochastic().drawing_for("b"), Stochastic(1).drawing_for("a"), Stochastic()]
    assert len({*parts, parts[0].drawing_for("round 0"), parts[0].drawing_for("round 1")}) == 6
    assert parts[0] == Stochastic().drawing_for("a")


def test_rounds_draw_anew() -> None:
    """What the adapter of one round gives back is rounded by other draws in the next."""
    seen: list[Tensor] = []

    @dataclass(frozen=True)
    class Noted(Stochastic):
        def drawing_for(self, part: str) -> Rounder:
            return Noted(Stochastic(self.seed).drawing_for(part).seed)

        def __call__(self, weight: Tensor, codebook: Codebook, statistics: LayerStatistics) -> Tensor:
            seen.append(torch.tensor(self.seed))
            return super().__call__(weight, codebook, statistics)

    gram = Gram(1, 16)
    gram.update(torch.randn(1, 64, 16), 64)
    code_layer(torch.randn(1, 16, 16), None, LayerPlan(Uniform(2), Noted(), rank=2, rounds=3), {Gram: gram})
    assert len({int(seed) for seed in seen}) == 3


@pytest.mark.parametrize("name", sorted(set(ROUNDERS) - {"stochastic"}))
def test_those_that_do_not_draw_stay_as_they_are(name: str) -> None:
    assert ROUNDERS[name]().drawing_for("layer") == ROUNDERS[name]()
