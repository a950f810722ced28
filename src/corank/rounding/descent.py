"""Coordinate descent over codes: each column in turn takes its best codes while all others stay."""

from __future__ import annotations

import torch
from torch import Tensor

from corank.rounding.walk import Steps, Walk, by_column, codes_of

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
    shape = (groups, -1, columns)
    values = by_column(how.codebook.values(codes)[:, order].reshape(shape))
    error = by_column(weight.float()[:, order].reshape(shape)) - values
    own, energies, places = values.split(1, 1), energy[:, :, None].split(1, 1), order.split(1)
    for _ in range(sweeps):
        still = True
        for start in range(0, columns, block):
            end = min(start + block, columns)
            steps = Steps.of(ordered[:, start:end] @ error, ordered[:, start:end, start:end])
            for column in (column for column in range(start, end) if seen[column]):
                # The error's gradient along this column is zero where its value is off by pull / energy.
                target = torch.addcdiv(own[column], steps.target(column - start), energies[column])
                found = how.codebook.columns(places[column]).rounded(target.view(-1, 1)).view(target.shape)
                torch.sub(found, own[column], out=steps.carried_by(column - start))
                own[column].copy_(found)
            error[:, start:end] -= steps.carried
            still = still and not bool(steps.carried.any())
        if still:
            break
    # Columns that nothing was seen of keep their codes, which need not be the only ones of their values.
    return torch.where(torch.tensor(seen, device=codes.device)[order.argsort()], codes_of(values, how), codes)
