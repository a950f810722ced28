"""Rounding at random to one of both neighbours, right on average."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from corank.codecs import Codebook
from corank.errors import ConfigError
from corank.rounding.base import Rounder
from corank.statistics import LayerStatistics

__all__ = ["Stochastic"]


@dataclass(frozen=True)
class Stochastic(Rounder):
    """A weight between the values ``v`` and ``V`` goes to ``V`` with probability ``(w - v) / (V - v)``.

    So each weight that lies within the range of its values is its own expectation; those outside go to the end. With
    the codec :class:`~corank.codecs.Quantiles` this is the probabilistic weight sharing of arXiv 2108.12704. It needs
    no data, and loses twice as much as rounding to nearest does on average.

    Args:
        seed: of the draws, from 0 to 2 ** 63 - 1; one seed always gives the same codes of a network, and every layer
            and round of it has draws of its own.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        if type(self.seed) is not int or not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed={self.seed!r}: a whole number from 0 to 2**63 - 1")

    def drawing_for(self, part: str) -> Rounder:
        digest = hashlib.sha256(f"{self.seed}/{part}".encode()).digest()
        return Stochastic(int.from_bytes(digest[:8], "little") >> 1)

    def __call__(self, weight: Tensor, codebook: Codebook, statistics: LayerStatistics) -> Tensor:
        below, above = codebook.neighbours(weight)
        low, high = codebook.values(below), codebook.values(above)
        share = (weight - low) / torch.where(high > low, high - low, 1.0)
        generator = torch.Generator().manual_seed(self.seed)
        draws = torch.rand(weight.shape, generator=generator, dtype=torch.float32).to(weight.device)
        return torch.where(draws < share, above, below)
