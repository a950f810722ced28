"""BinaryRelax (Yin et al., 2018, arXiv 1801.06313)."""

from __future__ import annotations

from corank.codecs import Bcgd
from corank.training.callbacks import Relax
from corank.training.inputs import LearnedStepInputs
from corank.training.recipe import Recipe
from corank.training.weights import Relaxed, StraightThrough

__all__ = ["binary_relax"]


def binary_relax(bits: int, inputs: int | None) -> Recipe:
    """Weights relaxed towards their codes, from the float network; verified against the authors' code.

    Binary at 1 bit, ternary at 2. Ours: one scale a row, not a layer, so that norms fold; ``eta`` grows over the share
    of the steps that the authors' 150 epochs of 200 are; the ternary scale is the mean of the weights that stay (their
    code divides by all); the loss, the optimizer and inputs of learned steps.
    """
    return Recipe(
        weights=Relaxed(StraightThrough(Bcgd(bits, group=0))),
        inputs=None if inputs is None else LearnedStepInputs(inputs),
        callbacks=(Relax(),),
        start="float",
    )
