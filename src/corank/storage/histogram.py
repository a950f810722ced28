"""How a layer's numbers are spread: counts in equal bins, and the information in its codes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Histogram", "entropy_bits", "histogram"]

BINS = 48


@dataclass(frozen=True)
class Histogram:
    """Counts of values in equal bins from ``low`` to ``high``; what lies outside is counted in the outer bins."""

    low: float
    high: float
    counts: tuple[int, ...]


def histogram(values: Tensor, low: float | None = None, high: float | None = None, bins: int = BINS) -> Histogram:
    """Counts the values of a tensor of any shape and floating dtype, by default from the least to the greatest."""
    flat = values.detach().flatten().float().cpu()
    low = float(flat.min()) if low is None else low
    high = float(flat.max()) if high is None else high
    if not low < high:  # all values are one
        low, high = low - 0.5, low + 0.5
    counts = torch.histc(flat.clamp(low, high), bins, low, high)
    return Histogram(low, high, tuple(int(count) for count in counts))


def entropy_bits(counts: Sequence[int]) -> float:
    """Bits that one code takes under the best code for these counts, codes taken as independent: ``-sum p log2 p``."""
    total = sum(counts)
    return math.fsum(count / total * math.log2(total / count) for count in counts if count)
