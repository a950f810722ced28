"""Quantized inputs by loops over single numbers."""

from __future__ import annotations

import numpy as np


def rounded(number: float, bits: int, step: float, offset: int) -> float:
    """The closest of the ``2 ** bits`` values ``step * (code - offset)``."""
    best = step * (0 - offset)
    for code in range(2**bits):
        value = step * (code - offset)
        if abs(value - number) < abs(best - number):
            best = value
    return best


def gradients(number: float, bits: int, step: float, offset: int) -> tuple[float, float]:
    """Of the rounded number, by the number and by the step (arXiv 1902.08153, equations 3 and 5)."""
    low, high = -offset, 2**bits - 1 - offset
    scaled = float(np.float32(number) / np.float32(step))
    if scaled < low:
        return 0.0, float(low)
    if scaled > high:
        return 0.0, float(high)
    return 1.0, float(np.rint(scaled)) - scaled
