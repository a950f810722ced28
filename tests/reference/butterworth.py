"""The low-pass mask of CoRa's search in plain Python."""

from __future__ import annotations


def butterworth(cutoff: float, full_rank: int, order: int) -> list[float]:
    """``t_i`` for ``i = 0 .. R - 1``."""
    return [1 / (1 + (i / (full_rank * cutoff)) ** (2 * order)) ** 0.5 for i in range(full_rank)]
