"""The walk over columns that the rounders share: pick a column's codes, let the columns still to come answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from corank.codecs import Codebook

__all__ = ["Steps", "Walk", "by_column", "codes_of", "energy_order", "walk"]


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
        targets: ``(G, R, C)`` float32, columns in ``order``.
        spread: ``(G, C, C)``, in ``order``; only what stands above the diagonal is read.
        how: the codebook, the order and the block.
        carry_values: what is carried: the values picked, or the targets less the values picked.
        first: ``(G, R)``, targets that the first column's codes are picked by, in place of its own.
    """
    columns, targets = targets.shape[2], by_column(targets)
    found = torch.empty_like(targets)  # the values, in the order of the walk
    places = how.order.split(1)
    for start in range(0, columns, how.block):
        end = min(start + how.block, columns)
        steps = Steps.of(targets[:, start:end], spread[:, start:end, start:end])
        for place, values in enumerate(found[:, start:end].split(1, 1)):
            target = steps.target(place)
            aim = first if first is not None and start + place == 0 else target
            values.copy_(how.codebook.columns(places[start + place]).rounded(aim.reshape(-1, 1)).view(target.shape))
            if carry_values:
                steps.carried_by(place).copy_(values)
            else:
                torch.sub(target, values, out=steps.carried_by(place))
        # Later blocks read their targets only now: one product for the whole block in place of one a column.
        if end < columns:
            targets[:, end:].baddbmm_(spread[:, start:end, end:].transpose(1, 2), steps.carried, alpha=-1)
    return codes_of(found, how)


def by_column(matrix: Tensor) -> Tensor:
    """A copy ``(G, C, R)`` of ``(G, R, C)``: what a walk reads at each step then lies side by side in memory."""
    return matrix.transpose(1, 2).contiguous()


def codes_of(values: Tensor, how: Walk) -> Tensor:
    """Codes ``(G * R, C)``, columns in their own order, of values ``(G, C, R)`` that the codebook has."""
    found = values.new_empty(values.shape[0], values.shape[2], values.shape[1])
    found[:, :, how.order] = values.transpose(1, 2)
    return how.codebook.nearest(found.flatten(0, 1))


@dataclass(frozen=True)
class Steps:
    """One block of ``k`` columns on its way. A step is a few small operations, and starting them is most of its cost:
    so what each reads and writes is cut out beforehand, for all of them at once.

    Attributes:
        carried: ``(G, k, R)``, what the columns so far carry; zero of those to come.
    """

    carried: Tensor
    _targets: Sequence[Tensor]
    _spread: Sequence[Tensor]
    _carried: Sequence[Tensor]

    @classmethod
    def of(cls, targets: Tensor, spread: Tensor) -> Steps:
        """A block of targets ``(G, k, R)``, and ``(G, k, k)``, of which what stands above the diagonal is read."""
        carried = torch.zeros_like(targets, memory_format=torch.contiguous_format)
        above = by_column(spread.triu(1))
        return cls(carried, targets.split(1, 1), above.split(1, 1), carried.split(1, 1))

    def target(self, place: int) -> Tensor:
        """The target ``(G, 1, R)`` of a column, less what those before it carry."""
        return torch.baddbmm(self._targets[place], self._spread[place], self.carried, alpha=-1)

    def carried_by(self, place: int) -> Tensor:
        """What a column carries on, ``(G, 1, R)``, to be written to."""
        return self._carried[place]
