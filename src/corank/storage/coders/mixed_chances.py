"""Chances of yes-or-no decisions: counted in several contexts, mixed by weights that learn. Whole numbers throughout.

Reader and writer must come to the same chances on every machine, so nothing here is a float once the two tables of
this file are made. ``n`` decisions that are made together, ``M`` contexts of each.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["WHOLE", "MixedChances", "classes"]

WHOLE = 1 << 16
"""The chance that is certainty; chances are 1 to ``WHOLE - 1``."""

_UNIT = 256  # of logarithms: a factor of e
_FARTHEST = 12 * _UNIT - 1  # odds beyond e^12 are not told apart
_MOST = 1 << 14  # that a context counts before its counts are halved
_RATE = 60  # of learning, in 1/256 of the mean gradient
_CALM = 8  # decisions that are added to those of a batch: few decisions move the weights little

_LOGARITHMS = np.array([0] + [round(_UNIT * math.log(x)) for x in range(1, 4 * _MOST + 2)], np.int64)
_CHANCES = np.array(
    [min(WHOLE - 1, max(1, round(WHOLE / (1 + math.exp(-x / _UNIT))))) for x in range(-_FARTHEST, _FARTHEST + 1)],
    np.int64,
)


class MixedChances:
    """One kind of decision.

    Each context has counts of yes and no, and says the logarithm of the odds ``(yes + 1/4) / (no + 1/4)``. A weighted
    sum of them gives the chance (logistic mixing, Mahoney, "Adaptive weighing of context models", 2005); after every
    batch the weights take a step down the gradient of the bits that it cost.
    """

    def __init__(self, sizes: tuple[int, ...]) -> None:
        """``sizes``: how many values each of the ``M`` contexts takes."""
        self._first = np.cumsum([0, *sizes[:-1]]).tolist()
        self._no, self._yes = np.zeros((2, sum(sizes)), np.int64)
        self._most_counted = 0  # no context has counted more
        self._weights = np.full(len(sizes), WHOLE // len(sizes), np.int64)

    def chances(self, contexts: list[np.ndarray]) -> np.ndarray:
        """Chances of yes ``(n,)`` int64, where each of ``M`` contexts ``(n,)`` has these values."""
        self._at = np.empty((len(contexts), len(contexts[0])), np.int64)
        for row, first, values in zip(self._at, self._first, contexts, strict=True):
            np.add(values, first, out=row)
        odds = _LOGARITHMS[4 * self._yes + 1] - _LOGARITHMS[4 * self._no + 1]
        self._told = odds[self._at]
        # np.clip takes longer than both of these.
        mixed = np.minimum(np.maximum((self._weights @ self._told) >> 16, -_FARTHEST), _FARTHEST)
        self._given = _CHANCES[mixed + _FARTHEST]
        return self._given

    def learn(self, answers: np.ndarray) -> None:
        """Counts the answers ``(n,)`` bool of the batch whose chances were asked last, and moves the weights."""
        slope = self._told @ (answers * WHOLE - self._given)
        # Odds are in 1/256, chances in 1/65536 and the rate in 1/256: 32 bits, less the 16 that weights keep. A step
        # is of 4 at most, so that no number of steps there is time for comes near the end of an int64.
        self._weights += (slope // (len(answers) + _CALM) * _RATE) >> 16
        size = len(self._yes)
        yes = np.bincount(self._at[:, answers].reshape(-1), minlength=size)
        self._yes += yes
        self._no += np.bincount(self._at.reshape(-1), minlength=size) - yes
        self._most_counted += len(answers)
        while self._most_counted > _MOST:
            full = self._yes + self._no > _MOST
            self._yes[full] >>= 1
            self._no[full] >>= 1
            self._most_counted = int((self._yes + self._no).max())


def classes(counts: np.ndarray, usual: int) -> np.ndarray:
    """Which of 8 classes each count is of, by its share of the usual one: 0 far below, 3 alike, 7 far above."""
    # Both are halved until the table of logarithms has them.
    shift = max(0, max(int(counts.max(initial=0)), usual).bit_length() - _MOST.bit_length())
    distance = _LOGARITHMS[2 * (counts >> shift) + 1] - _LOGARITHMS[2 * (usual >> shift) + 1]
    return np.minimum(np.maximum((distance + 7 * _UNIT // 4) >> 7, 0), 7)
