"""PACT, the learned clip (arXiv 1805.06085)."""

from __future__ import annotations

from corank.errors import ConfigError
from corank.training.inputs import LearnedClipInputs
from corank.training.recipe import Recipe
from corank.training.weights import DoReFa

__all__ = ["pact"]


def pact(bits: int, inputs: int | None) -> Recipe:
    """Inputs clipped where it is learned, weights as DoReFa-Net has them (arXiv 1805.06085).

    Reconstruction, of the equations as they are commonly given. Ours: ``alpha`` starts at the range of least squared
    error and is not decayed; negative inputs are clipped alike; the first and last layer have 8 bits; the start,
    distillation, AdamW and the steps are those of every recipe.
    """
    if inputs is None:
        raise ConfigError(f"pact clips inputs and needs their bits, too: 'pact-w{bits}a{max(2, min(bits, 8))}'")
    return Recipe(weights=DoReFa(bits), inputs=LearnedClipInputs(inputs))
