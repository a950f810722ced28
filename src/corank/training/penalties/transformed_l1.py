"""Transformed l1 (Nikolova; Zhang and Xin, arXiv 1411.5735): few large weights rather than many small ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from corank.errors import ConfigError
from corank.training.penalties.base import Penalty

if TYPE_CHECKING:
    from corank.training.state import TrainingState

__all__ = ["TransformedL1", "transformed_l1"]


@dataclass(frozen=True)
class TransformedL1(Penalty):
    """``weight * sum T(w)`` over all weights of the layers that train, with ``T(w) = (1 + a) |w| / (a + |w|)``.

    ``T`` goes from the count of what is not zero (``a`` to 0) to ``|w|`` (``a`` to infinity); large weights cost little
    more than middling ones. Of weights that are rounded, those that the layer computes with count. A zero has the
    gradient zero.

    Args:
        weight: the factor.
        a: where the bend is, in the weights' own unit.
    """

    weight: float = 1e-5
    a: float = 1.0

    def __post_init__(self) -> None:
        if type(self.weight) not in (int, float) or not 0 <= self.weight <= 1e6:
            raise ConfigError(
                f"TransformedL1(weight={self.weight!r}): a factor from 0, e.g. TransformedL1(weight=1e-5)"
            )
        if type(self.a) not in (int, float) or not 0 < self.a <= 1e6:
            raise ConfigError(f"TransformedL1(a={self.a!r}): a number above 0, e.g. TransformedL1(a=1.0)")

    def __call__(self, state: TrainingState, loss: Tensor) -> Tensor:
        total = torch.zeros_like(loss)
        for layer in state.layers.values() if self.weight else ():
            total = total + self.weight * transformed_l1(layer.computed(), self.a).sum()
        return total


def transformed_l1(weight: Tensor, a: float) -> Tensor:
    """``(1 + a) |w| / (a + |w|)`` of each number, in its shape and dtype."""
    size = weight.abs()
    return (1 + a) * size / (a + size)
