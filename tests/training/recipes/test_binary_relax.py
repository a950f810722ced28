"""The recipe of BinaryRelax."""

from __future__ import annotations

import pytest

from corank.codecs import Bcgd
from corank.training.callbacks import Relax
from corank.training.inputs import LearnedStepInputs
from corank.training.recipe import Recipe
from corank.training.recipes.binary_relax import binary_relax
from corank.training.weights import Relaxed, StraightThrough


@pytest.mark.parametrize(("bits", "inputs"), [(1, None), (2, None), (4, 4)])
def test_weights_relax_to_the_levels_of_the_paper(bits: int, inputs: int | None) -> None:
    recipe = binary_relax(bits, inputs)
    assert recipe.weights == Relaxed(StraightThrough(Bcgd(bits, group=0)))
    assert recipe.callbacks == (Relax(),) and recipe.start == "float"
    assert recipe.inputs == (None if inputs is None else LearnedStepInputs(inputs))
    assert Recipe.from_json(recipe.to_json()) == recipe
