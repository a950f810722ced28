"""The recipe of random bias initialization."""

from __future__ import annotations

import pytest

from corank.errors import ConfigError
from corank.training.callbacks import RandomBias
from corank.training.recipe import Recipe
from corank.training.recipes import RECIPES


def test_its_parts() -> None:
    recipe = RECIPES["random-bias"](1, None)
    assert recipe.callbacks == (RandomBias(),) and recipe.start == "scratch"
    assert Recipe.from_json(recipe.to_json()) == recipe
    with pytest.raises(ConfigError, match="random-bias-1bit"):
        RECIPES["random-bias"](2, None)
