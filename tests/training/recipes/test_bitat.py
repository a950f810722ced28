"""The recipe in the manner of BiTAT."""

from __future__ import annotations

import pytest

from corank.codecs import Binary
from corank.errors import ConfigError
from corank.training.callbacks import LayerByLayer
from corank.training.penalties import Importance
from corank.training.recipe import Recipe
from corank.training.recipes import RECIPES
from corank.training.weights import StraightThrough


def test_its_parts() -> None:
    recipe = RECIPES["bitat"](1, None)
    assert recipe.weights == StraightThrough(Binary()) and recipe.start == "float"
    assert [type(one) for one in (*recipe.penalties, *recipe.callbacks)] == [Importance, LayerByLayer]
    assert Recipe.from_json(recipe.to_json()) == recipe
    for bits, inputs in ((2, None), (1, 4)):
        with pytest.raises(ConfigError, match="bitat-1bit"):
            RECIPES["bitat"](bits, inputs)
