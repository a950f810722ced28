"""Recipes by name: one paper, one file."""

from __future__ import annotations

import re
from collections.abc import Callable

from corank.codecs import Binary, StatsQ, Ternary, Uniform
from corank.config import choose
from corank.errors import ConfigError
from corank.training.inputs import LearnedStepInputs
from corank.training.recipe import Recipe
from corank.training.weights import LearnedStep, StraightThrough

RECIPES: dict[str, Callable[[int, int | None], Recipe]] = {
    "stats": lambda b, a: Recipe(
        StraightThrough(StatsQ(b) if b > 1 else Binary()), None if a is None else LearnedStepInputs(a)
    ),
    "ternary": lambda b, a: Recipe(StraightThrough(Ternary()), None if a is None else LearnedStepInputs(a)),
    "lsq": lambda b, a: Recipe(
        LearnedStep(Uniform(b, range="mse", half=b < 8)), None if a is None else LearnedStepInputs(a)
    ),
}
_NAME = re.compile(r"([a-z0-9]+(?:-[a-z0-9]+)*?)-(?:(\d)bit|w(\d)a(\d))")


def chosen_recipe(recipe: str | Recipe) -> Recipe:
    """The recipe, or the one of that name."""
    if isinstance(recipe, Recipe):
        return recipe
    found = _NAME.fullmatch(recipe)
    if found is None:
        raise ConfigError(f"recipe {recipe!r}: METHOD-Nbit or METHOD-wNaM, e.g. 'stats-2bit' or 'lsq-w4a4'")
    name, bits, weights, inputs = found.groups()
    return choose(name, RECIPES, "recipe")(int(bits or weights), None if inputs is None else int(inputs))
