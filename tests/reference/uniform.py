"""Uniform quantization by loops over single numbers."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def levels_of(bits: int, symmetric: bool) -> list[int]:
    """The whole numbers that codes stand for."""
    if not symmetric:
        return list(range(2**bits))
    return [-1, 1] if bits == 1 else list(range(-(2 ** (bits - 1)), 2 ** (bits - 1)))


def minmax(numbers: list[float], bits: int, symmetric: bool) -> tuple[float, int]:
    """Scale, as fp16 holds it, and zero point of the range that just holds all numbers and zero."""
    low, high = min([*numbers, 0.0]), max([*numbers, 0.0])
    levels = levels_of(bits, symmetric)
    if symmetric:
        return float(np.float16(max(low / levels[0], high / levels[-1]))), 0
    scale = float(np.float16((high - low) / (2**bits - 1)))
    return scale, round(-low / scale)


def closest(number: float, values: list[float]) -> float:
    """The closest of the values."""
    best = values[0]
    for value in values:
        if abs(value - number) < abs(best - number):
            best = value
    return best


def quantize(weight: Tensor, bits: int, symmetric: bool, group: int) -> list[list[float]]:
    """Every weight of ``(R, C)`` replaced by its closest value; ``group`` columns share a min-max scale."""
    result = []
    for row in weight.tolist():
        done: list[float] = []
        for start in range(0, len(row), group):
            part = row[start : start + group]
            scale, zero = minmax(part, bits, symmetric)
            values = [scale * (level - zero) for level in levels_of(bits, symmetric)]
            done += [closest(number, values) for number in part]
        result.append(done)
    return result
