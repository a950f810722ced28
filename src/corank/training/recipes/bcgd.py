"""Blended coarse gradient descent (Yin et al., 2018, arXiv 1808.05240)."""

from __future__ import annotations

from corank.codecs import Bcgd
from corank.training.callbacks import Blend
from corank.training.inputs import ResolutionInputs
from corank.training.recipe import Recipe
from corank.training.weights import StraightThrough

__all__ = ["bcgd"]


def bcgd(bits: int, inputs: int | None) -> Recipe:
    """Coarse gradients at quantized weights, blended; verified against the authors' code.

    Ours: one scale a row, not a layer, so that norms fold; the start from the codes of ``quantize`` and from its fit of
    the inputs; inputs go to the closest value, not up; the loss and the optimizer.
    """
    return Recipe(
        weights=StraightThrough(Bcgd(bits, group=0)),
        inputs=None if inputs is None else ResolutionInputs(inputs),
        callbacks=(Blend(),),
    )
