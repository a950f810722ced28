"""What happens when, while a network trains: what a callback may do. Nothing, unless it is overridden."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from corank.training.state import TrainingState

__all__ = ["Callback"]


@dataclass(frozen=True)
class Callback(ABC):  # noqa: B024 - every method has a default
    """A frozen setting: numbers only; JSON both ways by :data:`corank.training.callbacks.CALLBACKS`.

    What it remembers from step to step stands in ``state.kept``, which a checkpoint holds. Callbacks run in the order
    of the recipe.
    """

    def start(self, state: TrainingState) -> None:  # noqa: B027
        """Before the first step, also of a run that goes on; ``state.kept`` is then what it was."""

    def inputs_ready(self, state: TrainingState, loss_of: Callable[[Any], Tensor]) -> None:  # noqa: B027
        """Before the network runs, once for each part of a step: ``state.batch`` may be replaced. ``loss_of(inputs)``
        is the task's loss of others in its place, a scalar with a graph."""

    def loss_ready(self, state: TrainingState, loss: Tensor) -> Tensor:
        """The loss to differentiate, penalties added."""
        return loss

    def gradients_ready(self, state: TrainingState) -> None:  # noqa: B027
        """After the backward pass, before the optimizer's step."""

    def step_done(self, state: TrainingState) -> None:  # noqa: B027
        """After the optimizer's step, without gradients; ``state.step`` is still that step's number, from 0."""

    def finished(self, state: TrainingState) -> None:  # noqa: B027
        """After the last step, before anything is converted."""
