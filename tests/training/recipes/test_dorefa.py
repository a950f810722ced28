"""DoReFa as a recipe: its parts."""

from __future__ import annotations

from corank.training.inputs import LearnedStepInputs
from corank.training.recipes import RECIPES
from corank.training.weights import DoReFa


def test_parts() -> None:
    recipe = RECIPES["dorefa"](2, None)
    assert recipe.weights == DoReFa(2) and recipe.inputs is None
    assert RECIPES["dorefa"](1, 4).inputs == LearnedStepInputs(4)
