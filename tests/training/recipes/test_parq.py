"""The recipe of PARQ."""

from __future__ import annotations

import pytest

from corank.codecs import Binary, Codec, Levels
from corank.training.callbacks import Steepen
from corank.training.recipe import Recipe
from corank.training.recipes.parq import parq
from corank.training.weights import Parq


@pytest.mark.parametrize(
    ("bits", "codec"), [(1, Binary()), (2, Levels(2, (-3.0, -1.0, 1.0, 3.0))), (4, Levels(4, (*range(-15, 16, 2),)))]
)
def test_the_map_steepens_to_values_of_least_squares(bits: int, codec: Codec) -> None:
    recipe = parq(bits, None)
    assert recipe.weights == Parq(codec, refit=10)
    assert recipe.callbacks == (Steepen(),) and recipe.start == "float"
    assert Recipe.from_json(recipe.to_json()) == recipe
