"""The recipe of the weight compander."""

from __future__ import annotations

import pytest

from corank.errors import ConfigError
from corank.training.recipe import Recipe
from corank.training.recipes import RECIPES, chosen_recipe
from corank.training.weights import Compander


def test_it_ends_in_float() -> None:
    recipe = chosen_recipe("compander")
    assert recipe.weights == recipe.edge == Compander() and recipe.inputs is None
    assert Recipe.from_json(recipe.to_json()) == recipe
    for bits, inputs in ((4, None), (32, 4)):
        with pytest.raises(ConfigError, match="recipe='compander'"):
            RECIPES["compander"](bits, inputs)
