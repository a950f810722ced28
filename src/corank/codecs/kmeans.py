"""Levels by k-means, as in weight sharing (CWS of arXiv 2108.12704; weighted, as in SqueezeLLM, arXiv 2306.07629)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corank.codecs.clusters import SortedSets, kmeans
from corank.codecs.fitted import FittedLevels, check_fitted
from corank.errors import ConfigError

__all__ = ["KMeans"]


@dataclass(frozen=True)
class KMeans(FittedLevels):
    """The ``2 ** bits`` levels of least squared error that Lloyd's iterations find.

    Args:
        bits: 1 to 8.
        per: what has levels of its own: "row", "layer" or "network".
        scaled: levels are in units of each row's root mean square; not with ``per="row"``.
        zero: zero is a level, the others are for the weights that are not zero.
        weighted: a weight counts by the energy of its input, where that is known. SqueezeLLM weighs by the diagonal of
            the Fisher information; within a row, and for uncorrelated gradients, that is the same.
    """

    bits: int = 4
    per: str = "layer"
    scaled: bool = True
    zero: bool = False
    weighted: bool = False

    def __post_init__(self) -> None:
        check_fitted(self)
        if not isinstance(self.weighted, bool):
            raise ConfigError(f"weighted={self.weighted!r}: true or false")

    def mass(self, weight: Tensor, gram: Tensor | None) -> Tensor:
        if gram is None or not self.weighted:
            return torch.ones_like(weight)
        energy = gram.diagonal(dim1=1, dim2=2)
        share = energy / energy.mean(1, keepdim=True).clamp(min=1e-30)
        # Never quite zero: weights of silent inputs still draw levels where no others are.
        return share.clamp(min=1e-6).repeat_interleave(len(weight) // len(share), dim=0)

    def find(self, sets: SortedSets, count: int) -> tuple[Tensor, Tensor | None]:
        return kmeans(sets, count), None
