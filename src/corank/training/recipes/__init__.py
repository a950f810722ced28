"""Published methods as recipes: one paper, one file, one function of the bits of weights and inputs."""

from collections.abc import Callable

from corank.training.recipe import Recipe
from corank.training.recipes.adamp import adamp
from corank.training.recipes.cga import cga
from corank.training.recipes.stats import stats

RECIPES: dict[str, Callable[[int, int | None], Recipe]] = {
    "adamp": adamp,
    "cga": cga,
    "stats": stats,
}
"""By the name that stands before the bits: ``stats-2bit`` is ``RECIPES["stats"](2, None)``."""

__all__ = ["RECIPES"]
