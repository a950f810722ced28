"""OFQ's two phases: StatsQ, then confidence-guided annealing (Liu, Liu, Cheng, ICML 2023, arXiv 2302.02210)."""

from __future__ import annotations

from corank.training.callbacks import Confidence, Meters
from corank.training.recipe import Recipe, Schedule
from corank.training.recipes.stats import stats

__all__ = ["cga"]

_SHARE = 0.1  # of the steps: 30 epochs after 300
_FLOOR = 0.02  # of the peak rate: 1e-5 of 5.47e-4


def cga(bits: int, inputs: int | None) -> Recipe:
    """:func:`stats`, then, in the last tenth of the steps and at a constant low rate, steps that move only the weights
    within 0.005 of a level's width of a rounding threshold.

    Verified: band, share and low rate are those of the authors' scripts. Ours: what :func:`stats` says; every layer
    that rounds is annealed, the first and last among them; clipped weights are not near a threshold, where the
    authors' formula meets one at the clip; no queries and keys are multiplied.

    Args:
        bits: of weights, 1 to 8.
        inputs: bits of inputs, 2 to 8; None for float.
    """
    return stats(bits, inputs).replaced(
        callbacks=(Confidence(from_share=1 - _SHARE), Meters()),
        schedule=Schedule(floor=_FLOOR, hold=_SHARE),
    )
