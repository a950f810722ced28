"""What is added to the loss: what every penalty owes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from corank.training.state import TrainingState

__all__ = ["Penalty"]


@dataclass(frozen=True)
class Penalty(ABC):
    """A frozen setting: numbers only; JSON both ways by :data:`corank.training.penalties.PENALTIES`.

    What it remembers from step to step stands in ``state.kept``, which a checkpoint holds.
    """

    def start(self, state: TrainingState) -> None:
        """Called once before the first step, also of a run that goes on; ``state.kept`` is then what it was."""
        return None

    @abstractmethod
    def __call__(self, state: TrainingState, loss: Tensor) -> Tensor:
        """What to add to the task's ``loss``, a scalar with a graph: a scalar, differentiable."""

    def differentiates_twice(self) -> bool:
        """Whether it takes gradients of gradients, so that every operation must have second derivatives."""
        return False
