"""Binary weights with a scale (BWN and XNOR-Net, arXiv 1603.05279), 1 bit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corank.codecs.base import as_stored
from corank.codecs.scaled import ScaledLevels, check_fields

__all__ = ["Binary"]


@dataclass(frozen=True)
class Binary(ScaledLevels):
    """``value = +-scale``; the scale is the mean magnitude of a row, which is that of least squared error.

    Zero goes to ``+scale``.

    Args:
        bits: 1.
        group: columns that share a scale; 0 for one scale a row (output channel), -1 for one a weight.
    """

    bits: int = 1
    group: int = 0

    def __post_init__(self) -> None:
        check_fields(self, range(1, 2), self.group)

    def levels(self) -> Tensor:
        return torch.tensor([-1.0, 1.0], dtype=torch.float32)

    def fit_scale(self, rows: Tensor) -> Tensor:
        return as_stored(rows.abs().mean(1, keepdim=True))
