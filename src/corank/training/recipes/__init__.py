"""One paper, one recipe."""

from collections.abc import Callable

from corank.training.recipe import Recipe
from corank.training.recipes.bitat import bitat
from corank.training.recipes.compander import compander
from corank.training.recipes.direct import direct
from corank.training.recipes.gradient_l1 import gradient_l1
from corank.training.recipes.random_bias import random_bias

RECIPES: dict[str, Callable[[int, int | None], Recipe]] = {
    "bitat": bitat,
    "compander": compander,
    "direct": direct,
    "gradient-l1": gradient_l1,
    "random-bias": random_bias,
}
"""By name: a recipe for weights of so many bits, and inputs of so many, or None for float ones."""

__all__ = ["RECIPES"]
