"""CGA's recipe: a constant low rate in the last tenth of the steps, where only undecided weights move."""

from __future__ import annotations

import pytest
import torch
from training.stepping import state_of, stepped

from corank.codecs import Binary
from corank.training.callbacks import Confidence, Meters
from corank.training.recipe import Recipe
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
