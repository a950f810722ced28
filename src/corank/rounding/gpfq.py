"""Greedy path following quantization (arXiv 2201.11113), from moments alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from corank.codecs import Codebook
from corank.errors import ConfigError
from corank.rounding.base import Rounder
from corank.rounding.walk import Walk, energy_order, walk
from corank.statistics import CrossMoments, Gram, LayerStatistics, require

__all__ = ["Gpfq"]


@dataclass(frozen=True)
class Gpfq(Rounder):
    """Rounds column by column, each so that the output *so far* is met best.

    With inputs ``x`` of the float network and ``x'`` of the quantized one (from
    :class:`~corank.statistics.CrossMoments` where it was collected, else ``x' = x``)::

        q_t = Q(<x'_t, u_{t-1} + w_t x_t> / |x'_t|^2),    u_t = u_{t-1} + w_t x_t - q_t x'_t

    Columns go in descending order of their inputs' energy; inputs that are always zero are rounded as they are.

    Args:
        block: columns updated together; changes the speed, not the result.
    """

    needs = (Gram,)
    corrects_input_error: ClassVar[bool] = True
    walks_columns: ClassVar[bool] = True

    block: int = 64

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ConfigError(f"Gpfq(block={self.block!r}): a positive number of columns, e.g. Gpfq(block=64)")

    def __call__(self, weight: Tensor, codebook: Codebook, statistics: LayerStatistics) -> Tensor:
        gram, drift = require(statistics, Gram, "Gpfq"), statistics.get(CrossMoments)
        seen = drift.gram.matrix if isinstance(drift, CrossMoments) else gram.matrix
        cross = drift.cross if isinstance(drift, CrossMoments) else seen
        order = energy_order(seen)
        seen, cross = seen[:, order][:, :, order], cross[:, order][:, :, order]
        energy = seen.diagonal(dim1=1, dim2=2)
        dead = energy <= 0
        per_energy = torch.where(dead, 0.0, 1 / torch.where(dead, 1.0, energy))[:, None, :]
        # <x'_t, sum_{j<=t} w_j x_j> / |x'_t|^2 never depends on what was picked; the walk takes away the q_j x'_j
        wanted = weight.float().reshape(seen.shape[0], -1, weight.shape[1])[:, :, order]
        targets = wanted @ cross.triu() * per_energy
        targets = torch.where(dead[:, None, :], wanted, targets)
        return walk(targets, seen * per_energy, Walk(codebook, order, self.block), carry_values=True)
