"""Additive powers of two (arXiv 1909.13144)."""

from __future__ import annotations

from corank.codecs import AdditivePowerOfTwo
from corank.training.inputs import LearnedStepInputs
from corank.training.recipe import Recipe
from corank.training.weights import LearnedStep

__all__ = ["apot"]


def apot(bits: int, inputs: int | None) -> Recipe:
    """Weights are sums of powers of two, of a learned scale (arXiv 1909.13144).

    Verified: the levels are those of the authors' code. Ours: a scale a row, not one a layer, so that a norm folds into
    it; it starts at least squared error or at the codes' own, not at 3; weights are not brought to mean 0 and deviation
    1, which a norm behind the layer undoes; a weight beyond the outermost level gets no gradient, as in LSQ; inputs are
    uniform with a learned step; distillation, AdamW and the steps are those of every recipe.
    """
    return Recipe(
        weights=LearnedStep(AdditivePowerOfTwo(bits)),
        inputs=None if inputs is None else LearnedStepInputs(inputs),
    )
