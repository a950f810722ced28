"""Published ways of training: one paper, one file. A recipe's name is the method's and its bits, "bcgd-w1a4"."""

from __future__ import annotations

from collections.abc import Callable

from corank.training.recipe import Recipe
from corank.training.recipes.bcgd import bcgd
from corank.training.recipes.binary_relax import binary_relax
from corank.training.recipes.parq import parq
from corank.training.recipes.roq import roq

__all__ = ["RECIPES"]

RECIPES: dict[str, Callable[[int, int | None], Recipe]] = {
    "bcgd": bcgd,
    "binary-relax": binary_relax,
    "parq": parq,
    "roq": roq,
}
"""Methods by name; each takes the bits of weights and of inputs, None for float inputs."""
