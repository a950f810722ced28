"""Penalties that draw whole units to zero while the network trains, before any goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from corank.pruning.coupling import Coupling
from corank.pruning.units import unit_norms
from corank.training.callbacks import Callback
from corank.training.penalties.perspective import perspective

if TYPE_CHECKING:
    from corank.training.state import TrainingState

__all__ = ["DrawToZero"]


@dataclass(frozen=True)
class DrawToZero(Callback):
    """Adds ``weight * sum_g n_g z(w_g) / sum_g n_g`` to the loss, over the units of all couplings.

    Args:
        couplings: whose units are drawn.
        bounds: ``M`` of each coupling, for the perspective penalty; None: group lasso, ``z(w) = |w| / sqrt(n)``.
        weight: the factor.
        alpha: of the perspective penalty.
    """

    couplings: tuple[Coupling, ...]
    bounds: tuple[Tensor, ...] | None
    weight: float
    alpha: float

    def loss_ready(self, state: TrainingState, loss: Tensor) -> Tensor:
        modules, total, count = dict(state.model.named_modules()), torch.zeros_like(loss), 0.0
        for place, coupling in enumerate(self.couplings):
            squares, largest, numbers = unit_norms(modules, coupling)
            if self.bounds is None:
                found = torch.where(squares > 0, squares, 1.0).sqrt() * (squares > 0) / numbers.sqrt()
            else:
                found = perspective(squares, largest, self.alpha, self.bounds[place].to(squares.device))
            total = total + (numbers * found).sum()
            count += float(numbers.sum())
        drawn = self.weight * total / max(1.0, count)
        state.measured["penalty"] = float(drawn.detach())
        return loss + drawn
