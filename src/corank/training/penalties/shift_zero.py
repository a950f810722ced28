"""What keeps weights trained as S3 from zero (the regulariser of arXiv 2107.03453)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from corank.errors import ConfigError
from corank.training.penalties.base import Penalty
from corank.training.weights.s3_shift import S3Weight

if TYPE_CHECKING:
    from corank.training.state import TrainingState

__all__ = ["ShiftZero"]


@dataclass(frozen=True)
class ShiftZero(Penalty):
    """``alpha sum max(-w_v, 0)`` over the latents that say which weights are zero: those below 0.

    Args:
        alpha: the factor.
    """

    alpha: float = 1e-5

    def __post_init__(self) -> None:
        if not self.alpha >= 0:
            raise ConfigError(f"alpha={self.alpha!r}: a number from 0, e.g. ShiftZero(1e-5)")

    def start(self, state: TrainingState) -> None:
        if not any(isinstance(weight, S3Weight) for _, _, weight in state.weights()):
            raise ConfigError("ShiftZero is about weights trained as S3: Recipe(weights=S3Latents(), ...)")

    def __call__(self, state: TrainingState, loss: Tensor) -> Tensor:
        latents = [weight.get_parameter("present") for _, _, weight in state.weights() if isinstance(weight, S3Weight)]
        return self.alpha * torch.stack([(-latent).relu().sum() for latent in latents]).sum()
