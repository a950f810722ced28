"""Coordinate descent over codes: each column in turn takes its best codes while all others stay."""

from __future__ import annotations

import torch
from torch import Tensor

from corank.rounding.walk import Walk

__all__ = ["descend"]


def descend(codes: Tensor, weight: Tensor, how: Walk, gram: Tensor, sweeps: int) -> Tensor:
    """Codes ``(G * R, C)`` whose ``tr((W - Q) Sigma (W - Q)^T)`` is no larger than that of ``codes``.

    Args:
        codes: ``(G * R, C)`` uint8, where to start.
        weight: ``(G * R, C)`` float32.
        how: the weight's codebook, the order of the columns and the block.
        gram: ``(G, C, C)``, Sigma; columns whose energy is zero keep their codes.
        sweeps: walks over all columns; fewer where one moves nothing.
    """
    groups, columns, order, block = gram.shape[0], gram.shape[-1], how.order, how.block
    ordered = gram[:, order][:, :, order]
    energy = ordered.diagonal(dim1=1, dim2=2)
    seen = (energy > 0).all(0).tolist()
    best = codes[:, order]
    values = how.codebook.values(codes)[:, order].reshape(groups, -1, columns)
    error = weight.float()[:, order].reshape(values.shape) - values
    skips = codes.device.type == "cpu"  # elsewhere each look at the codes would wait for the device
    for _ in range(sweeps):
        before = best.clone()
        for start in range(0, columns, block):
            end = min(start + block, columns)
            pull = error @ ordered[:, :, start:end]
            for column in (column for column in range(start, end) if seen[column]):
                # The error's gradient along this column is zero where its value is off by pull / energy.
                target = values[:, :, column] + pull[:, :, column - start] / energy[:, column, None]
                part = how.codebook.columns(order[column : column + 1])
                picked = part.nearest(target.reshape(-1, 1))
                if skips and torch.equal(picked[:, 0], best[:, column]):
                    continue
                moved = part.values(picked).reshape(target.shape) - values[:, :, column]
                best[:, column] = picked[:, 0]
                values[:, :, column] += moved
                error[:, :, column] -= moved
                pull -= moved[:, :, None] * ordered[:, None, column, start:end]
        if torch.equal(best, before):
            break
    result = torch.empty_like(codes)
    result[:, order] = best
    return result
