"""The core iteration as a recipe: BCGD but for its blend."""

from __future__ import annotations

from corank.training.recipe import Recipe
from corank.training.recipes.bcgd import bcgd
from corank.training.recipes.roq import roq


def test_it_is_bcgd_without_the_blend() -> None:
    assert roq(1, 4) == bcgd(1, 4).replaced(callbacks=())
    assert Recipe.from_json(roq(1, 4).to_json()) == roq(1, 4)
