"""Ternary weights, straight through."""

from __future__ import annotations

from corank.codecs import Ternary
from corank.errors import ConfigError
from corank.training.inputs import LearnedStepInputs
from corank.training.recipe import Optimizer, Recipe
from corank.training.weights import StraightThrough

__all__ = ["ternary"]


def ternary(bits: int, inputs: int | None) -> Recipe:
    """Ternary weight networks (arXiv 1605.04711), started from ``quantize``'s codes.

    Verified against the specification: weights ``s {-1, 0, 1}``, gradients straight through. Ours: the scale of least
    squared error, found exactly, in the place of the mean above 0.7 times the mean magnitude.

    Args:
        bits: 2.
        inputs: bits of inputs with learned steps; None for float inputs.
    """
    if bits != 2:
        raise ConfigError(f"ternary-{bits}bit: three levels take a code of 2 bits: 'ternary-2bit'")
    if inputs is not None:
        return Recipe(StraightThrough(Ternary()), LearnedStepInputs(inputs))
    return Recipe(StraightThrough(Ternary()), optimizer=Optimizer(rate=4e-3))
