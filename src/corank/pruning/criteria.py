"""How much each unit is worth: the scores by which they go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from corank.pruning.coupling import Coupling
from corank.pruning.units import products, unit_norms
from corank.training.penalties.perspective import indicator

__all__ = ["bounds_of", "first_order", "magnitudes", "perspective_scores", "saved_by_unit"]

_SMALLEST = 1e-30


def magnitudes(model: nn.Module, couplings: Sequence[Coupling]) -> list[Tensor]:
    """2-norm of each unit's numbers, relative to the mean of its coupling's."""
    modules, found = dict(model.named_modules()), list[Tensor]()
    for coupling in couplings:
        norm = unit_norms(modules, coupling)[0].detach().sqrt()
        found.append(norm / norm.mean().clamp(min=_SMALLEST))
    return found


def bounds_of(model: nn.Module, couplings: Sequence[Coupling], factor: float) -> list[Tensor]:
    """``M`` of each coupling: the largest magnitude of its numbers, times ``factor``."""
    modules = dict(model.named_modules())
    return [factor * unit_norms(modules, one)[1].detach().amax().clamp(min=_SMALLEST) for one in couplings]


def perspective_scores(
    model: nn.Module, couplings: Sequence[Coupling], bounds: Sequence[Tensor], alpha: float
) -> list[Tensor]:
    """``y`` of each unit, the relaxed 0/1 variable of :func:`~corank.training.penalties.perspective.perspective`; of
    units at 1 the larger norm is worth more."""
    modules, found = dict(model.named_modules()), list[Tensor]()
    for coupling, bound in zip(couplings, bounds, strict=True):
        squares, largest, _ = (one.detach() for one in unit_norms(modules, coupling))
        stays = indicator(squares, largest, alpha, bound)
        found.append(stays + squares.sqrt() / squares.sqrt().amax().clamp(min=_SMALLEST) * 1e-3)
    return found


def first_order(
    model: nn.Module,
    couplings: Sequence[Coupling],
    batches: Iterable[Any],
    loss: Callable[[nn.Module, int, Any], Tensor],
) -> list[Tensor]:
    """Mean over batches of the squared first-order change of the loss as each unit fades: ``(sum w dL/dw)^2`` over what
    reads it (arXiv 1906.10771, with the reading side in the place of the giving one: behind a batch norm a filter's own
    sum is zero).

    Args:
        model: in evaluation mode; its parameters' gradients are cleared.
        couplings: all that may go.
        batches: of samples.
        loss: (model, number of the batch, batch) -> scalar with a graph.
    """
    modules = dict(model.named_modules())
    totals = [torch.zeros(one.units, dtype=torch.float64, device="cpu") for one in couplings]
    wanted = {one: one.requires_grad for one in model.parameters()}
    model.requires_grad_(True)
    try:
        for number, batch in enumerate(batches):
            model.zero_grad(set_to_none=True)
            with torch.enable_grad():
                loss(model, number, batch).backward()
            for total, coupling in zip(totals, couplings, strict=True):
                total += products(modules, coupling).square().cpu()
    finally:
        model.zero_grad(set_to_none=True)
        for one, before in wanted.items():
            one.requires_grad_(before)
    return totals


def saved_by_unit(couplings: Sequence[Coupling], cost: Callable[[Mapping[int, Tensor]], float]) -> list[float]:
    """What one unit of each coupling saves, all else in place."""
    whole, found = cost({}), list[float]()
    for place, one in enumerate(couplings):
        first = torch.arange(one.units, device="cpu") == 0
        found.append(max(whole - cost({place: first}), _SMALLEST))
    return found
