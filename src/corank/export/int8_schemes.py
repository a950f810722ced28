"""Where the 256 levels of int8 lie: schemes of symmetry, steps of weights, and clipping (Quantune, arXiv 2202.05048, as
its public search scripts and Glow define them).

Values between nodes are uint8 here. Glow's int8 codes from -128 to 127 with an offset are the same numbers 128 lower,
so that a scheme is a range ``(low, high)`` whose 255 steps put a level on zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from corank.errors import ConfigError
from corank.export.int8_ranges import Range
from corank.statistics.input_ranges import divergences

__all__ = ["SCHEMES", "Profile", "clipped", "rounded_weight", "scheme_range"]

SCHEMES = ("asymmetric", "symmetric", "symmetric-uint8", "power-of-two")
_LEAST = 1e-12
_ONE_SIDE, _BOTH_SIDES = 128, 255  # levels that magnitudes share where values have both signs, or one


@dataclass(frozen=True)
class Profile:
    """What calibration saw of one value between nodes.

    Attributes:
        low, high: its least and its largest number.
        counts: of magnitudes in equal bins from 0 to the larger of ``-low`` and ``high``.
    """

    low: float
    high: float
    counts: NDArray[np.float64]


def scheme_range(scheme: str, low: float, high: float) -> Range:
    """The ends of 256 levels, zero among them.

    Args:
        scheme: of :data:`SCHEMES`. Asymmetric: the range, widened to zero. Symmetric: step ``max(-low / 128,
            high / 127)``. Symmetric-uint8: the same, and from 0 to ``high`` where nothing is negative. Power-of-two:
            the symmetric step raised to the next power of two.
        low, high: of the values.
    """
    _known(scheme)
    low, high = min(low, 0.0), max(high, 0.0)
    if scheme == "asymmetric" or (scheme == "symmetric-uint8" and low == 0):
        return low, high
    step = max(-low / 128, high / 127, _LEAST)
    step = _power(step) if scheme == "power-of-two" else step
    return -128 * step, 127 * step


def rounded_weight(weight: Tensor, scheme: str, per_channel: bool, largest: int) -> tuple[NDArray[np.float32], Tensor]:
    """Steps, and codes times steps in the weight's shape; symmetric whatever the scheme, as ONNX Runtime's kernels are.

    Args:
        weight: ``(R, ...)`` float32.
        scheme: of :data:`SCHEMES`; power-of-two raises the steps.
        per_channel: steps ``(R,)``, else ``(1,)``.
        largest: magnitude of a code.
    """
    _known(scheme)
    rows = weight.detach().flatten(1 if per_channel else 0).abs()
    steps = (rows.amax(-1).reshape(-1) / largest).clamp_min(_LEAST)
    if scheme == "power-of-two":
        steps = steps.log2().ceil().exp2()
    wide = steps.reshape(-1, *[1] * (weight.dim() - 1))
    values = (weight.detach() / wide).round().clamp(-largest, largest) * wide
    return steps.numpy().astype(np.float32), values


def clipped(profile: Profile) -> Range:
    """The range at the threshold of least divergence between the histograms before and after rounding.

    One threshold for both signs, whatever the scheme; Glow looks for each end where the scheme is asymmetric.
    """
    largest = max(-profile.low, profile.high)
    if not largest > 0:
        return profile.low, profile.high
    counts = profile.counts.copy()
    counts[0] = counts[1]  # zeros, which a ReLU makes, are exact at every step
    levels = _ONE_SIDE if profile.low < 0 else _BOTH_SIDES
    found = divergences(counts, levels, mass=False)
    first = len(counts) - len(found) + 1
    end = largest * (first + int(np.argmin(found))) / len(counts)
    return max(profile.low, -end), min(profile.high, end)


def _power(step: float) -> float:
    return 2.0 ** math.ceil(math.log2(step))


def _known(scheme: str) -> None:
    if scheme not in SCHEMES:
        raise ConfigError(f"scheme={scheme!r}: one of {', '.join(SCHEMES)}")
