"""Structured perspective regularization (arXiv 2206.14056): whole filters are drawn to zero as if a 0/1 variable chose.

The closed form is the minimum that the paper's reformulation asks for; the authors' main branch computes another one,
which lacks alpha in two of three cases and jumps between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from corank.errors import ConfigError
from corank.training.penalties.base import Penalty

if TYPE_CHECKING:
    from corank.training.state import TrainedLayer, TrainingState

__all__ = ["Perspective", "indicator", "perspective"]

_SMALLEST = 1e-10


@dataclass(frozen=True)
class Perspective(Penalty):
    """``weight * sum_g n_g z(w_g) / sum_g n_g``, ``n_g`` numbers in each group ``w_g``: a filter's weights, its bias,
    and gain and offset of the batch norm behind it.

    ``z(w) = min over y in [|w|_inf / M, 1] of alpha |w|^2 / y + (1 - alpha) y``, ``M`` being the largest magnitude in
    the layer and its norm as training starts, times ``bound``. Here training starts from the trained network; the
    paper's from random numbers, with that network's ``M``.

    Args:
        weight: the factor.
        alpha: of the squares against the number of groups that stay, between 0 and 1.
        bound: the factor of ``M``.
    """

    weight: float = 2.0
    alpha: float = 0.1
    bound: float = 1.0

    def __post_init__(self) -> None:
        if type(self.weight) not in (int, float) or not 0 <= self.weight <= 1e6:
            raise ConfigError(f"Perspective(weight={self.weight!r}): a factor from 0, e.g. Perspective(weight=2.0)")
        if type(self.alpha) not in (int, float) or not 0 < self.alpha < 1:
            raise ConfigError(f"Perspective(alpha={self.alpha!r}): between 0 and 1, e.g. Perspective(alpha=0.1)")
        if type(self.bound) not in (int, float) or not 0 < self.bound < math.inf:
            raise ConfigError(f"Perspective(bound={self.bound!r}): a factor above 0, e.g. Perspective(bound=1.0)")

    def start(self, state: TrainingState) -> None:
        for name, layer in state.layers.items():
            if f"perspective:{name}" not in state.kept:
                state.kept[f"perspective:{name}"] = self.bound * _rows(state, name, layer).detach().abs().amax()

    def __call__(self, state: TrainingState, loss: Tensor) -> Tensor:
        total, count = torch.zeros_like(loss), 0
        for name, layer in state.layers.items():
            rows, most = _rows(state, name, layer), state.kept[f"perspective:{name}"].to(loss.device)
            found = perspective(rows.square().sum(1), rows.abs().amax(1), self.alpha, most)
            total, count = total + rows.shape[1] * found.sum(), count + rows.numel()
        return self.weight * total / max(1, count)


def _rows(state: TrainingState, name: str, layer: TrainedLayer) -> Tensor:
    """``(R, n)``: all numbers of each filter."""
    norm = state.norms.get(name)
    own = [layer.module._parameters.get("bias"), *(() if norm is None else (norm.weight, norm.bias))]
    parts = [one[:, None] for one in own if isinstance(one, Tensor)]
    return torch.cat([layer.matrix, *parts], dim=1)


def perspective(square: Tensor, largest: Tensor, alpha: float, bound: Tensor | float) -> Tensor:
    """``z`` of groups, by their squared 2-norm and largest magnitude, tensors of one shape; differentiable, also at
    zero, where its gradient is zero.

    - A, ``y = 1``: ``alpha |w|^2 + 1 - alpha``;
    - B, where ``|w|_inf / M <= c |w| < 1``, ``c = sqrt(alpha / (1 - alpha))``: ``2 sqrt(alpha (1 - alpha)) |w|``;
    - C, else: ``alpha M |w|^2 / |w|_inf + (1 - alpha) |w|_inf / M``.

    Args:
        square: ``|w|^2`` of each group.
        largest: ``|w|_inf`` of each group.
        alpha: between 0 and 1.
        bound: ``M``, above 0.
    """
    c = math.sqrt(alpha / (1 - alpha))
    norm = torch.where(square > 0, square, 1.0).sqrt() * (square > 0)
    share = largest / bound
    whole = alpha * square + 1 - alpha
    lasso = 2 * math.sqrt(alpha * (1 - alpha)) * norm
    bounded = alpha * square / share.clamp(min=_SMALLEST) + (1 - alpha) * share
    found = torch.where(share <= c * norm, lasso, bounded)
    return torch.where(torch.maximum(share, c * norm) >= 1, whole, found)


def indicator(square: Tensor, largest: Tensor, alpha: float, bound: Tensor | float) -> Tensor:
    """``y``, where :func:`perspective` has its minimum: 0 for a group that is gone, 1 for one that stays."""
    c = math.sqrt(alpha / (1 - alpha))
    return torch.maximum(largest / bound, c * square.sqrt()).clamp(max=1.0)
