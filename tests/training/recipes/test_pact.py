"""PACT as a recipe: its parts, and that it needs the bits of inputs."""

from __future__ import annotations

import pytest

from corank.errors import ConfigError
from corank.training.inputs import LearnedClipInputs
from corank.training.recipes import RECIPES
from corank.training.weights import DoReFa


def test_parts() -> None:
    recipe = RECIPES["pact"](4, 3)
    assert recipe.weights == DoReFa(4) and recipe.inputs == LearnedClipInputs(3)


def test_inputs_are_needed() -> None:
    with pytest.raises(ConfigError, match="pact-w4a4"):
        RECIPES["pact"](4, None)
