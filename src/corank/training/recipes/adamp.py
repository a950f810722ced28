"""AdamP (Heo et al., ICLR 2021, arXiv 2006.08217) over StatsQ."""

from __future__ import annotations

from corank.training.recipe import Optimizer, Recipe
from corank.training.recipes.stats import stats

__all__ = ["adamp"]


def adamp(bits: int, inputs: int | None) -> Recipe:
    """:func:`stats` with the update's radial part taken out where the weight is found to be scale-invariant.

    Verified: the optimizer is timm's class with the paper's defaults (threshold 0.1, decay ratio 0.1). Ours: low-bit
    weights at all; the paper trains float ones. See ``docs/training/adamp.md`` for what that changes.

    Args:
        bits: of weights, 1 to 8.
        inputs: bits of inputs, 2 to 8; None for float.
    """
    return stats(bits, inputs).replaced(optimizer=Optimizer("adamp"))
