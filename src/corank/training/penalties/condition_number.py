"""A surrogate of the condition number of weights, in the manner of TSCNC (arXiv 2503.20454; a reconstruction)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from corank.errors import ConfigError
from corank.training.penalties.base import Penalty

if TYPE_CHECKING:
    from corank.training.state import TrainedLayer, TrainingState

__all__ = ["ConditionNumber", "condition_surrogate", "stacked"]

_RIDGE = 1e-6  # of the mean squared singular value: a matrix that lost a direction has a finite surrogate


@dataclass(frozen=True)
class ConditionNumber(Penalty):
    """``weight * sum_l c(W_l)`` over the layers that train; see :func:`condition_surrogate`.

    ``W`` is the layer's weight ``(c_out, c_in k^2)``, of grouped layers the block-diagonal matrix of their groups; of
    weights that are rounded, the one that the layer computes with. What the paper minimises is not known: its abstract
    says that heavy pruning raises condition numbers, which harms robustness, and that it constrains them.

    Args:
        weight: the factor.
    """

    weight: float = 0.05

    def __post_init__(self) -> None:
        if type(self.weight) not in (int, float) or not 0 <= self.weight <= 1e6:
            raise ConfigError(
                f"ConditionNumber(weight={self.weight!r}): a factor from 0, e.g. ConditionNumber(weight=0.05)"
            )

    def __call__(self, state: TrainingState, loss: Tensor) -> Tensor:
        total = torch.zeros_like(loss)
        for layer in state.layers.values() if self.weight else ():
            total = total + self.weight * condition_surrogate(stacked(layer)).to(loss)
        return total


def stacked(layer: TrainedLayer) -> Tensor:
    """The weight that the layer computes with as the matrices of its groups ``(G, R, C)``, differentiable."""
    return layer.computed().reshape(layer.geometry.matrix_shape)


def condition_surrogate(weight: Tensor, ridge: float = _RIDGE) -> Tensor:
    """``c(W) = log(|W|_F^2 / r) - logdet(W W^T + e I) / r``, a scalar float64 that can be differentiated.

    ``r`` is the number of rows or columns that are not all zero, whichever are fewer (``W^T W`` where those are the
    columns), and ``e`` a share ``ridge`` of ``|W|_F^2 / r``, so that ``c(s W) = c(W)`` exactly. For ``e`` to 0:
    ``c >= 0``, 0 where all singular values are equal, and the condition number is at most ``2 exp(r c / 2)``.

    Args:
        weight: ``(G, R, C)``: the blocks of a block-diagonal matrix.
        ridge: above 0.
    """
    exact = weight.double()
    rows, columns = (exact.detach().abs().amax(side) > 0 for side in (2, 1))
    if int(columns.sum()) < int(rows.sum()):
        exact, rows = exact.mT, columns
    count = int(rows.sum())
    if count == 0:
        return 0 * exact.sum()
    mean = exact.square().sum() / count
    # what is left out has one on the diagonal, whose logarithm is zero
    diagonal = torch.where(rows, torch.full_like(exact[..., 0], ridge), torch.ones_like(exact[..., 0]))
    gram = exact @ exact.mT / mean + torch.diag_embed(diagonal)
    logdet = 2 * torch.linalg.cholesky(gram).diagonal(dim1=1, dim2=2).log().sum()
    return -logdet / count  # log(mean) is gone with the division
