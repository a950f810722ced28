"""Networks that train while their weights are low-bit."""

from corank.training.recipe import Optimizer, Recipe, Schedule

__all__ = ["Optimizer", "Recipe", "Schedule"]
