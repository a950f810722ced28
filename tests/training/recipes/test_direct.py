"""The recipe of direct quantization."""

from __future__ import annotations

from corank.training.inputs import ChannelWeightedInputs
from corank.training.recipe import Recipe
from corank.training.recipes import RECIPES
from corank.training.weights import DirectLevels


def test_widths() -> None:
    recipe = RECIPES["direct"](2, None)
    assert recipe.weights == DirectLevels(2) and recipe.inputs is None
    assert RECIPES["direct"](3, 4).inputs == ChannelWeightedInputs(4)
    assert Recipe.from_json(RECIPES["direct"](3, 4).to_json()) == RECIPES["direct"](3, 4)
