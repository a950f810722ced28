"""Published methods as recipes: one paper, one file, one function of the bits of weights and inputs."""

from collections.abc import Callable

from corank.training.recipe import Recipe
from corank.training.recipes.binary import binary

RECIPES: dict[str, Callable[[int, int | None], Recipe]] = {
    "binary": binary,
}
"""By the name that stands before the bits: ``binary-w1a1`` is ``RECIPES["binary"](1, 1)``."""

__all__ = ["RECIPES"]
