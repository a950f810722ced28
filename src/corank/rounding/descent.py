"""Coordinate descent over codes: each column in turn takes its best codes while all others stay."""

from __future__ import annotations

import torch
from torch import Tensor

from corank.codecs import Codebook

__all__ = ["descend"]


def descend(
    codes: Tensor, weight: Tensor, codebook: Codebook, gram: Tensor, order: Tensor, block: int, sweeps: int
) -> Tensor:
    """Codes ``(G * R, C)`` whose ``tr((W - Q) Sigma (W - Q)^T)`` is no larger than that of ``codes``.

    Args:
        codes: ``(G * R, C)`` uint8, where to start.
        weight: ``(G * R, C)`` float32.
        codebook: of the weight.
        gram: ``(G, C, C)``, Sigma; columns whose energy is zero keep their codes.
        order: ``(C,)``, the columns as they are walked.
        block: columns whose effect on the others is summed up; changes the speed, not the result.
        sweeps: walks over all columns; fewer where one moves nothing.
    """
    groups, columns = gram.shape[0], gram.shape[-1]
    ordered = gram[:, order][:, :, order]
    energy = ordered.diagonal(dim1=1, dim2=2)
    seen = (energy > 0).all(0).tolist()
    best = codes[:, order]
    values = codebook.values(codes)[:, order].reshape(groups, -1, columns)
    error = weight.float()[:, order].reshape(values.shape) - values
    skips = codes.device.type == "cpu"  # elsewhere each look at the codes would wait for the device
    for _ in range(sweeps):
        before = best.clone()
        for start in range(0, columns, block):
            end = min(start + block, columns)
            pull = error @ ordered[:, :, start:end]
            for column in (column for column in range(start, end) if seen[column]):
                target = values[:, :, column] + pull[:, :, column - start] / energy[:, column, None]
                part = codebook.columns(order[column : column + 1])
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
