"""The condition numbers of the weights while they train: what the surrogate of TSCNC (arXiv 2503.20454) stands for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from corank.errors import ConfigError
from corank.training.callbacks.base import Callback
from corank.training.penalties.condition_number import stacked

if TYPE_CHECKING:
    from corank.training.state import TrainingState

__all__ = ["ConditionNumbers", "condition_number"]

_LOST = 1e16  # above what float64 tells from a matrix that has lost a direction


@dataclass(frozen=True)
class ConditionNumbers(Callback):
    """Writes into the history, at every ``every``-th step: ``condition``, the mean over the layers of the decimal
    logarithm of :func:`condition_number`, and ``condition_max``, the largest of them.

    They are those of the weights that the layers compute with, by a singular value decomposition of each.

    Args:
        every: steps between two looks.
    """

    every: int = 25

    def __post_init__(self) -> None:
        if type(self.every) is not int or self.every < 1:
            raise ConfigError(f"every={self.every!r}: a positive number of steps, e.g. ConditionNumbers(every=25)")

    @torch.no_grad()
    def step_done(self, state: TrainingState) -> None:
        if (state.step + 1) % self.every and state.step + 1 != state.recipe.iterations:
            return
        found = [math.log10(condition_number(stacked(layer))) for layer in state.layers.values()]
        if found:
            state.measured.update(condition=sum(found) / len(found), condition_max=max(found))


def condition_number(weight: Tensor) -> float:
    """The largest singular value over the least, from 1; at most 1e16, where float64 ends: that of a matrix that has
    lost a direction. Rows and columns of zeros are left out.

    Args:
        weight: ``(G, R, C)``: the blocks of a block-diagonal matrix.
    """
    exact = weight.detach().double()
    rows, columns = (exact.abs().amax(side) > 0 for side in (2, 1))
    count = int(torch.minimum(rows.sum(1), columns.sum(1)).sum())
    if count == 0:
        return 1.0
    values = torch.linalg.svdvals(exact).flatten().sort(descending=True).values[:count]
    least, most = float(values[-1]), float(values[0])
    return most / least if least * _LOST > most else _LOST
