"""Where a layer's inputs are clipped: by divergence of histograms, in two forms."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["RANGES", "divergences", "threshold"]

RANGES = ("mse", "minmax", "kl", "kl-mass")
"""``mse``: least squared error; ``minmax``: all of the inputs; ``kl``: least divergence, as in common int8 calibrators;
``kl-mass``: the same with a penalty on what is clipped, the form given for CFWS (arXiv 2312.10588)."""

_BINS = 2048
_FIRST = 128  # bins of the narrowest range tried
_SMOOTHING = 1e-4

Histogram = NDArray[np.float64]


def threshold(values: Tensor, levels: int, mass: bool) -> float:
    """The magnitude at which clipping the inputs diverges least.

    The bin at zero counts as much as the one beside it, as in NVIDIA's calibrators.

    Args:
        values: a flat sample of the inputs.
        levels: values that the quantizer has on one side of zero, zero with them.
        mass: the form with the clipping penalty.

    Returns:
        The upper edge of the chosen histogram bin; 0 where all inputs are zero.
    """
    size = values.detach().abs().float()
    largest = float(size.max()) if size.numel() else 0.0
    if not largest > 0:
        return 0.0
    counts = torch.histc(size, _BINS, 0.0, largest).double().cpu().numpy()
    counts[0] = counts[1]  # zeros, of which a ReLU gives many, are exact at every step, and would outweigh the rest
    # Of equal ones the first, and so the narrowest range and the finest step.
    found = divergences(counts, levels, mass)
    return largest * (_FIRST + int(np.argmin(found))) / _BINS


def divergences(counts: Histogram, levels: int, mass: bool) -> Histogram:
    """How far the coded inputs' histogram is from the clipped one, for the first 128, 129, ... bins of ``counts``.

    P is the first ``i`` bins with the tail added to the last of them; Q is these bins without the tail, merged to
    ``levels`` values and spread over those that are not empty. Textbook: ``KL(P / sum P, Q / sum Q)``, empty bins of Q
    smoothed. With ``mass``: ``1 / sum P * sum P (log(sum P * P) - log(sum Q * Q))`` over bins where neither is empty,
    which adds ``log(sum P / sum Q)`` where the textbook subtracts it, and so penalises what is clipped. (Whether the
    published results used this form could not be checked.)
    """
    total = counts.sum()
    found = np.empty(len(counts) - _FIRST + 1)
    for place, bins in enumerate(range(_FIRST, len(counts) + 1)):
        inside = counts[:bins]
        wanted = inside.copy()
        # What is clipped piles up at the end of P and is missing in Q: that is how clipping shows.
        wanted[-1] += total - inside.sum()
        given = _spread(inside, levels)
        found[place] = _with_mass(wanted, given) if mass else _textbook(wanted, given)
    return found


def _spread(inside: Histogram, levels: int) -> Histogram:
    """The bins merged to ``levels`` groups, each group's count spread evenly over its bins that are not empty."""
    groups = min(levels, len(inside))
    of = np.arange(len(inside)) * groups // len(inside)
    # Empty bins get no share: it would be mass where P has none.
    filled = inside > 0
    sums = np.bincount(of, inside, groups)
    used = np.bincount(of, filled, groups)
    return np.where(filled, (sums / np.maximum(used, 1))[of], 0.0)


def _textbook(wanted: Histogram, given: Histogram) -> float:
    if given.sum() == 0:
        return np.inf
    # log(p / q) has no value at an empty bin; both are smoothed, so that equal histograms still diverge by zero.
    p, q = _smoothed(wanted / wanted.sum()), _smoothed(given / given.sum())
    return float((p * np.log(p / q)).sum())


def _smoothed(shares: Histogram) -> Histogram:
    """A little for every empty bin, taken evenly from the others."""
    empty = shares == 0
    if not empty.any():
        return shares
    # Taken from the others so that shares still add up to one, but no share may fall to zero or below.
    less = _SMOOTHING * empty.sum() / max(1, (~empty).sum())
    return np.where(empty, _SMOOTHING, np.maximum(shares - less, _SMOOTHING * 1e-4))


def _with_mass(wanted: Histogram, given: Histogram) -> float:
    both = (wanted > 0) & (given > 0)
    if not both.any():
        return np.inf
    p, q, all_p, all_q = wanted[both], given[both], wanted.sum(), given.sum()
    return float((p * (np.log(all_p * p) - np.log(all_q * q))).sum() / all_p)
