"""The walk over columns that the rounders share: pick a column's codes, let the columns still to come answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corank.codecs import Codebook

__all__ = ["Walk", "energy_order", "walk"]


def energy_order(gram: Tensor) -> Tensor:
    """Columns ``(C,)`` in descending order of their inputs' energy, one order for all groups of ``(G, C, C)``."""
    energy = gram.diagonal(dim1=1, dim2=2)
    relative = energy / energy.mean(1, keepdim=True).clamp(min=1e-30)
    return relative.sum(0).argsort(descending=True, stable=True)


@dataclass(frozen=True)
class Walk:
    """How columns are gone through.

    Attributes:
        codebook: of the weight, columns in their own order.
        order: ``(C,)``, the columns as they are walked.
        block: columns whose effect on later ones is summed up; changes the speed, not the result.
    """

    codebook: Codebook
    order: Tensor
    block: int = 64


def walk(targets: Tensor, spread: Tensor, how: Walk, carry_values: bool = False, first: Tensor | None = None) -> Tensor:
    """Codes ``(G * R, C)`` uint8: column after column takes the values nearest to its targets.

    Column ``j`` then moves the targets of each later column ``k`` by ``-carried_j * spread_jk``.

    Args:
        targets: ``(G, R, C)`` float32, columns in ``order``; changed in place.
        spread: ``(G, C, C)``, in ``order``; only what stands above the diagonal is read.
        how: the codebook, the order and the block.
        carry_values: what is carried: the values picked, or the targets less the values picked.
        first: ``(G, R)``, targets that the first column's codes are picked by, in place of its own.
    """
    groups, rows, columns = targets.shape
    found = torch.empty(groups * rows, columns, dtype=torch.uint8, device=targets.device)  # in the order of the walk
    for start in range(0, columns, how.block):
        end = min(start + how.block, columns)
        carried = torch.empty(groups, rows, end - start, device=targets.device, dtype=targets.dtype)
        for column in range(start, end):
            target = targets[:, :, column]
            aim = first if first is not None and column == 0 else target
            part = how.codebook.columns(how.order[column : column + 1])
            picked = part.nearest(aim.reshape(-1, 1))
            found[:, column] = picked[:, 0]
            values = part.values(picked).reshape(groups, rows)
            moved = values if carry_values else target - values
            targets[:, :, column + 1 : end] -= moved[:, :, None] * spread[:, None, column, column + 1 : end]
            carried[:, :, column - start] = moved
        # Later blocks read their targets only now: one product for the whole block in place of one a column.
        targets[:, :, end:] -= carried @ spread[:, start:end, end:]
    codes = torch.empty_like(found)
    codes[:, how.order] = found
    return codes
