"""The recipe of gradient l1 regularization."""

from __future__ import annotations

import pytest

from corank.errors import ConfigError
from corank.training.penalties import GradientL1
from corank.training.recipe import Recipe
from corank.training.recipes import RECIPES, chosen_recipe


def test_nothing_is_rounded() -> None:
    recipe = chosen_recipe("gradient-l1")
    assert recipe.weights is recipe.edge is recipe.inputs is None
    assert [type(one) for one in recipe.penalties] == [GradientL1]
    assert Recipe.from_json(recipe.to_json()) == recipe
    for bits, inputs in ((4, None), (32, 4)):
        with pytest.raises(ConfigError, match="recipe='gradient-l1'"):
            RECIPES["gradient-l1"](bits, inputs)
