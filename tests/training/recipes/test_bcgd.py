"""The recipe of blended coarse gradient descent."""

from __future__ import annotations

import pytest

from corank.codecs import Bcgd
from corank.training.callbacks import Blend
from corank.training.inputs import ResolutionInputs
from corank.training.recipe import Recipe
from corank.training.recipes.bcgd import bcgd
from corank.training.weights import StraightThrough


@pytest.mark.parametrize(("bits", "inputs"), [(1, 4), (2, None), (4, 4)])
def test_it_blends_straight_through_weights(bits: int, inputs: int | None) -> None:
    recipe = bcgd(bits, inputs)
    assert recipe.weights == StraightThrough(Bcgd(bits, group=0))
    assert recipe.callbacks == (Blend(1e-5),)
    assert recipe.inputs == (None if inputs is None else ResolutionInputs(inputs))
    assert Recipe.from_json(recipe.to_json()) == recipe
