"""CGA's recipe: a constant low rate in the last tenth of the steps, where only undecided weights move."""

from __future__ import annotations

import pytest
import torch
from training.stepping import state_of, stepped

from corank.codecs import Binary
from corank.errors import ConfigError
from corank.training.callbacks import Confidence, Meters
from corank.training.recipe import Recipe, Schedule
from corank.training.recipes import RECIPES
from corank.training.weights import StraightThrough


def test_the_second_phase_has_a_constant_low_rate() -> None:
    recipe = RECIPES["cga"](2, None)
    assert recipe.callbacks == (Confidence(0.005, from_share=0.9), Meters())
    rates = [recipe.schedule(step / 400) for step in range(400)]
    annealed = [step for step in range(400) if step / 400 >= 0.9]
    assert len(annealed) == 40
    assert [rates[step] for step in annealed] == pytest.approx([0.02] * 40, abs=1e-12)
    assert max(rates) == pytest.approx(1.0) and all(rate > 0.02 for rate in rates[40:360])
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert RECIPES["cga"](1, 4).weights == StraightThrough(Binary())


def test_nearly_all_weights_stay_in_the_second_phase() -> None:
    state = state_of(RECIPES["cga"](2, None).replaced(iterations=20))
    optimizer = torch.optim.AdamW(state.model.parameters(), lr=0.01, weight_decay=0.1)
    moved = []
    for _ in range(20):
        before = state.layers["head"].latent.detach().clone()
        stepped(state, optimizer)
        moved.append(float((state.layers["head"].latent != before).float().mean()))
    assert min(moved[:18]) > 0.9 and max(moved[18:]) < 0.05


@pytest.mark.parametrize("asked", [{"hold": 0.9, "warm": 0.2}, {"hold": -0.1}, {"floor": 1.5}])
def test_what_is_no_schedule_is_refused(asked: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"Schedule\((hold|floor)="):
        Schedule(**asked)


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_a_schedule_comes_down_to_its_floor_and_holds_it(name: str) -> None:
    schedule = Schedule(name, warm=0.0, floor=0.25, hold=0.5)
    assert [schedule(place) for place in (0.0, 0.25, 0.5, 0.75)] == pytest.approx([1.0, 0.625, 0.25, 0.25])
    assert Schedule(name)(0.55) == pytest.approx(0.5)
