"""Published methods as recipes: one paper, one file, one function of the bits of weights and inputs."""

from collections.abc import Callable

from corank.training.recipe import Recipe
from corank.training.recipes.apot import apot
from corank.training.recipes.dense_shift import dense_shift
from corank.training.recipes.dorefa import dorefa
from corank.training.recipes.lsq import lsq
from corank.training.recipes.pact import pact
from corank.training.recipes.power_of_two import power_of_two
from corank.training.recipes.s3 import s3

RECIPES: dict[str, Callable[[int, int | None], Recipe]] = {
    "apot": apot,
    "dense-shift": dense_shift,
    "dorefa": dorefa,
    "lsq": lsq,
    "pact": pact,
    "power-of-two": power_of_two,
    "s3": s3,
}
"""By the name that stands before the bits: ``stats-2bit`` is ``RECIPES["stats"](2, None)``."""

__all__ = ["RECIPES"]
