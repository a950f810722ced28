"""The numbers of each unit of a coupling, gathered from all its sides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from corank.pruning.coupling import Coupling, Side, side_size, tensors_of

__all__ = ["UnitNorms", "products", "unit_norms"]

Read = Callable[[nn.Module, str], Tensor | None]
UnitNorms = tuple[Tensor, Tensor, Tensor]
"""``|w|^2``, ``|w|_inf`` and how many numbers there are, of each unit, ``(U,)``."""


def unit_norms(modules: Mapping[str, nn.Module], coupling: Coupling) -> UnitNorms:
    """Of all that gives the units: rows of layers, biases, gains and offsets of norms, parameters on their own.
    Differentiable."""
    found: UnitNorms | None = None
    for side in coupling.gives():
        for rows in _rows(modules[side.module], side, lambda module, name: module._parameters.get(name)):
            unit = side.unit.to(rows.device)
            empty = rows.new_zeros(coupling.units)
            squares, largest, counts = found or (empty, empty, empty)
            found = (
                squares.index_add(0, unit, rows.square().sum(1)),
                largest.scatter_reduce(0, unit, rows.abs().amax(1), "amax"),
                counts.index_add(0, unit, torch.full_like(rows[:, 0], rows.shape[1])),
            )
    assert found is not None
    return found


def products(modules: Mapping[str, nn.Module], coupling: Coupling) -> Tensor:
    """``(U,)``: weight times gradient, summed over what reads each unit: how the loss changes as the unit fades."""

    def product(module: nn.Module, name: str) -> Tensor | None:
        own = module._parameters.get(name)
        return None if own is None or own.grad is None else own.detach() * own.grad

    device = next(modules[coupling.name].parameters()).device
    total = torch.zeros(coupling.units, dtype=torch.float64, device=device)
    for side in coupling.reads():
        for rows in _rows(modules[side.module], side, product):
            total.index_add_(0, side.unit.to(device), rows.double().sum(1))
    return total


def _rows(module: nn.Module, side: Side, read: Read) -> Iterator[Tensor]:
    """``(n, m)`` for each tensor of a side: the numbers of each of its channels."""
    for name, axis, groups in tensors_of(module, side):
        tensor = read(module, name)
        if tensor is None:
            continue
        place = side.index.to(tensor.device)
        if groups == 1:
            yield tensor.movedim(axis, 0).flatten(1).index_select(0, place) if tensor.dim() > 1 else tensor[place, None]
            continue
        size = side_size(module, side) // groups  # channel c is that of group c // size at c % size
        by_group = tensor.movedim(axis, 1).reshape(groups, -1, size, *tensor.movedim(axis, 1).shape[2:])
        yield by_group.movedim(2, 1).flatten(2).flatten(0, 1).index_select(0, place)
