"""S3 as a recipe: its parts and its one width."""

from __future__ import annotations

import pytest

from corank.errors import ConfigError
from corank.training.penalties import ShiftZero
from corank.training.recipe import Recipe
from corank.training.recipes import RECIPES
from corank.training.weights import S3Latents


def test_parts() -> None:
    recipe = RECIPES["s3"](3, None)
    assert recipe.weights == S3Latents() and recipe.penalties == (ShiftZero(1e-5),)
    assert (recipe.start, recipe.loss, recipe.optimizer.decay) == ("scratch", "labels", 1e-4)
    with pytest.raises(ConfigError, match="S3Shift takes 3"):
        RECIPES["s3"](2, None)


def test_recipes_of_this_family_survive_json() -> None:
    for name in ("apot", "dense-shift", "dorefa", "lsq", "pact", "power-of-two", "s3"):
        recipe = RECIPES[name](3, 4)
        assert Recipe.from_json(recipe.to_json()) == recipe
