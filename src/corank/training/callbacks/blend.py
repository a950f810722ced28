"""The blend of blended coarse gradient descent (BCGD, arXiv 1808.05240)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from corank.errors import ConfigError
from corank.training.callbacks.base import Callback

if TYPE_CHECKING:
    from corank.training.state import TrainingState

__all__ = ["Blend"]


@dataclass(frozen=True)
class Blend(Callback):
    """``W <- (1 - rho) W + rho Q(W) - rate * gradient``: before each step, weights move a little towards their codes.

    The blend is of the weight that the gradient was found at, and so comes before the optimizer's step. With ``rho``
    at 0 this is the core iteration ``W <- W - rate * gradient at Q(W)`` (RoQ, arXiv 2012.05529), and nothing is done.

    Args:
        rho: share of the codes.
    """

    rho: float = 1e-5

    def __post_init__(self) -> None:
        if type(self.rho) not in (int, float) or not 0 <= self.rho < 1:
            raise ConfigError(f"rho={self.rho!r}: a share from 0 to below 1, e.g. Blend(1e-5)")

    def gradients_ready(self, state: TrainingState) -> None:
        if self.rho == 0:
            return
        for _, layer, weight in state.weights():
            if weight.trains_weight:
                with torch.no_grad():
                    matrix = layer.matrix
                    layer.rewrite(torch.lerp(matrix, weight.coded(matrix).decode(), self.rho))
