"""Training of hardware-compliant power-of-two weights (arXiv 2203.05025)."""

from __future__ import annotations

from corank.codecs import PowerOfTwo
from corank.training.inputs import LearnedStepInputs
from corank.training.recipe import Recipe
from corank.training.weights import StraightThrough

__all__ = ["power_of_two"]


def power_of_two(bits: int, inputs: int | None) -> Recipe:
    """Zero and signed powers of two; the scale, too, is one, of a whole weight, fixed at the start (arXiv 2203.05025).

    Reconstruction: the levels are those of a later paper's code, rounding to the closest and the identity as its
    gradient those of a summary. Ours: the scale is that of least squared error and not of the largest weight;
    distillation, AdamW and the steps are those of every recipe; inputs of few bits have a learned step.

    Norms stay in the file: folded, they would make scales that are no powers of two.
    """
    return Recipe(
        weights=StraightThrough(PowerOfTwo(bits, group=-1, power_of_two_scale=True), refit=0),
        inputs=None if inputs is None else LearnedStepInputs(inputs),
    )
