"""Recurrence of optimum for training weight and activation quantized networks (Long et al., 2020, arXiv 2012.05529)."""

from __future__ import annotations

from corank.training.recipe import Recipe
from corank.training.recipes.bcgd import bcgd

__all__ = ["roq"]


def roq(bits: int, inputs: int | None) -> Recipe:
    """The core iteration that the paper analyses, ``W <- W - rate * coarse gradient at Q(W)``: BCGD without its blend.

    The iteration is verified; the paper is theory and trains no network in this way of ours. Ours is what is ours in
    :func:`~corank.training.recipes.bcgd.bcgd`.
    """
    return bcgd(bits, inputs).replaced(callbacks=())
