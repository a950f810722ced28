"""GPTQ (arXiv 2210.17323), for convolutions over their unfolded inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corank.codecs import Codebook
from corank.errors import ConfigError
from corank.rounding.base import Rounder
from corank.statistics import Gram, LayerStatistics, need

__all__ = ["Gptq", "inverse_factor"]


@dataclass(frozen=True)
class Gptq(Rounder):
    """Rounds column by column and spreads each column's error over the columns still to come.

    Columns go in descending order of their inputs' energy (one order for all channel groups); the codebook stays
    fixed. Inputs that are always zero get a unit diagonal and are rounded as they are.

    Args:
        damping: added to the diagonal of the Gram matrix, as a part of its mean.
        block: columns updated together; changes the speed, not the result.
    """

    needs = (Gram,)

    damping: float = 0.01
    block: int = 64

    def __post_init__(self) -> None:
        if not self.damping > 0 or self.block < 1:
            raise ConfigError(f"Gptq(damping={self.damping!r}, block={self.block!r}): both are positive")

    def __call__(self, weight: Tensor, codebook: Codebook, statistics: LayerStatistics) -> Tensor:
        gram = need(statistics, Gram, "Gptq")
        order, factor = gram.derived(("gptq", self.damping), lambda: _ordered_factor(gram.matrix, self.damping))
        groups, columns = factor.shape[0], factor.shape[-1]
        rest = weight.float().reshape(groups, -1, columns)[:, :, order].clone()
        codes = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
        for start in range(0, columns, self.block):
            end = min(start + self.block, columns)
            errors = torch.empty(groups, rest.shape[1], end - start, device=weight.device)
            for column in range(start, end):
                target = rest[:, :, column]
                part = codebook.columns(order[column : column + 1])
                picked = part.nearest(target.reshape(-1, 1))
                codes[:, order[column]] = picked[:, 0]
                error = (target - part.values(picked).reshape(groups, -1)) / factor[:, column, column, None]
                rest[:, :, column + 1 : end] -= error[:, :, None] * factor[:, None, column, column + 1 : end]
                errors[:, :, column - start] = error
            rest[:, :, end:] -= errors @ factor[:, start:end, end:]
        return codes


def _ordered_factor(gram: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    energy = gram.diagonal(dim1=1, dim2=2)
    relative = energy / energy.mean(1, keepdim=True).clamp(min=1e-30)
    order = relative.sum(0).argsort(descending=True, stable=True)
    return order, inverse_factor(gram[:, order][:, :, order], damping)


def inverse_factor(gram: Tensor, damping: float) -> Tensor:
    """Upper Cholesky factor ``(G, C, C)`` of the damped Gram matrix's inverse.

    Damping grows tenfold, a few times, where the matrix is not positive definite in float32.
    """
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
                return upper
        damping *= 10
    raise ConfigError("the Gram matrix is not positive definite; are the calibration inputs finite?")
