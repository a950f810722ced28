"""GPTQ (arXiv 2210.17323), for convolutions over their unfolded inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corank.codecs import Codebook
from corank.errors import ConfigError
from corank.notes import note
from corank.rounding.columns import ColumnRounder
from corank.rounding.descent import descend
from corank.rounding.walk import Walk, energy_order, walk
from corank.statistics import Gram, LayerStatistics, require

__all__ = ["Gptq", "inverse_factor"]


@dataclass(frozen=True)
class Gptq(ColumnRounder):
    """Rounds column by column and spreads each column's error over the columns still to come.

    Columns go in descending order of their inputs' energy (one order for all channel groups); the codebook stays
    fixed. Inputs that are always zero get a unit diagonal and are rounded as they are.

    Args:
        damping, block: as of :class:`~corank.rounding.columns.ColumnRounder`.
        sweeps: likewise; not part of GPTQ.
    """

    def __call__(self, weight: Tensor, codebook: Codebook, statistics: LayerStatistics) -> Tensor:
        gram = require(statistics, Gram, "Gptq")
        order, spread = gram.derived(("gptq", self.damping), lambda: _ordered_spread(gram.matrix, self.damping))
        targets = weight.float().reshape(spread.shape[0], -1, weight.shape[1])[:, :, order]
        how = Walk(codebook, order, self.block)
        codes = walk(targets, spread, how)
        if not self.sweeps:
            return codes
        return descend(codes, weight, how, gram.matrix, self.sweeps)


def _ordered_spread(gram: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    order = energy_order(gram)
    factor = inverse_factor(gram[:, order][:, :, order], damping)
    return order, factor / factor.diagonal(dim1=1, dim2=2)[:, :, None]


def inverse_factor(gram: Tensor, damping: float) -> Tensor:
    """Upper Cholesky factor ``(G, C, C)`` of the damped Gram matrix's inverse.

    Damping grows tenfold, a few times and with a note, where the matrix is not positive definite in float32.
    """
    asked = damping
    gram = gram.clone()
    diagonal = gram.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(1, keepdim=True)
    diagonal[diagonal <= 0] = 1.0
    for _ in range(6):
        damped = gram + torch.diag_embed((damping * mean.clamp(min=1e-12)).expand(diagonal.shape))
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not bool(failed.any()):
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not bool(failed.any()):
                if damping > asked:
                    note(f"the moments of its inputs took a damping of {damping:g}, not {asked:g}, to be inverted")
                return upper
        damping *= 10
    raise ConfigError("the Gram matrix is not positive definite; are the calibration inputs finite?")
