"""Ternary weights with a scale (TWN, arXiv 1605.04711), 2 bits a code."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corank.codecs.base import as_stored
from corank.codecs.scaled import ScaledLevels, check_fields
from corank.errors import ConfigError

__all__ = ["Ternary", "survivors_mean"]


@dataclass(frozen=True)
class Ternary(ScaledLevels):
    """``value = scale * {-1, 0, +1}``; three of the four codes are used, so an entropy coder stores at most 1.6 bits.

    Args:
        bits: 2.
        group: columns that share a scale; 0 for one scale a row (output channel), -1 for one a weight.
        threshold: "optimal": the scale of least squared error, found exactly by sorting; or "twn": the mean of the
            magnitudes above 0.7 times their mean. In the paper those weights, and no others, go to
            ``+-scale``; here which ones do is the rounder's choice, and the closest value loses less.
    """

    bits: int = 2
    group: int = 0
    threshold: str = "optimal"

    def __post_init__(self) -> None:
        check_fields(self, range(2, 3), self.group)
        if self.threshold not in ("optimal", "twn"):
            raise ConfigError(f"threshold={self.threshold!r}: Ternary takes 'optimal' or 'twn'")

    def levels(self) -> Tensor:
        return torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float32)

    def fit_scale(self, rows: Tensor) -> Tensor:
        if self.threshold == "twn":
            return as_stored(survivors_mean(rows))
        # k weights of mean magnitude m at +-m take k m^2 off the squared error; the largest k of them take most
        means = rows.abs().double().sort(1, descending=True).values.cumsum(1)
        counts = torch.arange(1, rows.shape[1] + 1, device=rows.device)
        best = (means.square() / counts).argmax(1, keepdim=True)
        return as_stored((means / counts).gather(1, best).float())


def survivors_mean(rows: Tensor) -> Tensor:
    """Mean magnitude ``(n, 1)`` of the weights above 0.7 times the mean magnitude of their row."""
    size = rows.abs()
    above = size > 0.7 * size.mean(1, keepdim=True)
    return (size * above).sum(1, keepdim=True) / above.sum(1, keepdim=True).clamp(min=1)
