"""Prices of codes, their slope, and the steering to a rate."""

from __future__ import annotations

import math

import pytest
import torch
from training.stepping import state_of

from corank.codecs import RateUniform
from corank.errors import ConfigError
from corank.training.penalties import Rate
from corank.training.penalties.rate import prices, slope
from corank.training.recipe import Recipe
from corank.training.weights import LearnedStep

WAY = LearnedStep(RateUniform(4, 1.0, group=0), spread=1.2)


def test_prices_are_bits() -> None:
    assert prices(torch.tensor([0.5, 0.25, 0.125])).tolist() == [1, 2, 3]
    assert float(prices(torch.zeros(1))) == 16  # of what never occurs


def test_the_slope_is_that_of_straight_lines_between_codes() -> None:
    price = torch.tensor([5.0, 2.0, 1.0, 3.0])
    place = torch.tensor([0.3, 1.5, 2.2, 2.9])
    step = 1e-3

    def line(at: torch.Tensor) -> torch.Tensor:
        low = at.floor().long().clamp(max=2)
        return price[low] + (at - low) * (price[low + 1] - price[low])

    torch.testing.assert_close(slope(price, place), (line(place + step) - line(place)) / step, atol=2e-3, rtol=0)


def test_its_value_is_the_entropy_and_its_gradient_moves_weights_to_cheap_codes() -> None:
    state = state_of(Recipe(WAY))
    rate = Rate(1.0, weight=1.0, pull=0.0, decay=0.0)
    value = rate(state, torch.zeros((), requires_grad=True))
    bits, count = 0.0, 0
    for layer, book in Rate.priced(state):
        codes = book.nearest(layer.matrix.detach())
        share = torch.bincount(codes.flatten().long()) / codes.numel()
        share = share[share > 0]
        bits += float(-(share * share.log2()).sum()) * codes.numel()
        count += codes.numel()
    assert state.measured["rate"] == pytest.approx(bits / count, rel=1e-5)
    value.backward()
    for layer, book in Rate.priced(state):
        gradient, level = layer.latent.grad, layer.geometry.from_matrix(book.nearest(layer.matrix.detach()).float()) - 7
        assert gradient is not None
        assert (
            float((gradient * level)[level.abs() == 1].sum()) > 0
        )  # descent leads the first codes to zero, the cheapest


def test_the_weight_of_a_bit_grows_where_the_rate_is_off_and_falls_where_it_is_met() -> None:
    for bits, larger in ((0.1, True), (6.0, False)):
        state = state_of(Recipe(WAY, iterations=10))
        rate, found = Rate(bits), []
        for step in range(9):
            state.step = step
            rate(state, torch.zeros(()))
            found.append(state.measured["weight of a bit"])
        assert (found[-1] > found[0]) == larger
        assert larger or found[-1] == 0.0  # below the way down nothing pulls


def test_shares_run_over_the_steps() -> None:
    state = state_of(Recipe(WAY))
    rate = Rate(1.0, decay=0.5)
    rate(state, torch.zeros(()))
    first = state.kept["rate:0"].clone()
    layer, _ = next(iter(Rate.priced(state)))
    layer.rewrite(torch.zeros_like(layer.matrix))
    rate(state, torch.zeros(()))
    now = torch.zeros_like(first)
    now[7] = 1.0
    torch.testing.assert_close(state.kept["rate:0"], (first + now) / 2)


def test_further_parts_of_a_step_have_its_price_and_move_nothing_on() -> None:
    state = state_of(Recipe(WAY, iterations=10))
    rate, kept = Rate(0.3), dict[str, torch.Tensor]()
    for state.step in range(3):
        state.first = True
        value = rate(state, torch.zeros(()))
        kept = {name: one.clone() for name, one in state.kept.items()}
        state.first = False
        assert torch.equal(rate(state, torch.zeros(())), value)
        assert all(torch.equal(state.kept[name], one) for name, one in kept.items())


def test_a_recipe_without_priced_codes_is_refused() -> None:
    with pytest.raises(ConfigError, match="LearnedStep"):
        Rate(1.0)(state_of(Recipe()), torch.zeros(()))


@pytest.mark.parametrize("given", [{"bits": 0.0}, {"bits": 9}, {"weight": 0.0}, {"decay": 1.0}, {"reached": 0.0}])
def test_numbers_that_cannot_be(given: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Rate(**given)
    assert math.isclose(Rate().bits, 0.5)
