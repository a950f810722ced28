"""Several narrow symbols as one byte: fewer and rounder symbols for a coder, and it sees neighbours together."""

from __future__ import annotations

import numpy as np

from corank.storage.coders.fixed import symbol_bits

__all__ = ["join", "joined_levels", "most_joined", "split"]


def most_joined(levels: int) -> int:
    """How many symbols a byte holds."""
    return max(1, 8 // symbol_bits(levels))


def joined_levels(levels: int, together: int) -> int:
    """Levels of ``together`` symbols joined, at least 2."""
    return max(2, levels) if together == 1 else 1 << (symbol_bits(levels) * together)


def join(symbols: np.ndarray, levels: int, together: int) -> np.ndarray:
    """Symbols ``(N,)`` joined to uint8, the first in the highest bits; zeros fill up the last."""
    if together == 1:
        return symbols
    # In uint8 throughout: joined symbols fill at most its 8 bits, so no shift loses any.
    padded = np.zeros(-(-len(symbols) // together) * together, np.uint8)
    padded[: len(symbols)] = symbols
    columns, bits = padded.reshape(-1, together), symbol_bits(levels)
    joined = columns[:, 0] << np.uint8((together - 1) * bits)
    for place in range(1, together):
        joined |= columns[:, place] << np.uint8((together - 1 - place) * bits)
    return joined


def split(joined: np.ndarray, levels: int, together: int, count: int) -> np.ndarray:
    """The inverse of :func:`join`: ``(count,)``."""
    if together == 1:
        return joined[:count]
    bits = symbol_bits(levels)
    out = np.empty((len(joined), together), joined.dtype)
    for place in range(together):
        out[:, place] = (joined >> ((together - 1 - place) * bits)) & ((1 << bits) - 1)
    return out.reshape(-1)[:count]
