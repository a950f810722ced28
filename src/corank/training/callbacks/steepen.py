"""The schedule of PARQ (arXiv 2503.15748): its map steepens until it rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from corank.errors import ConfigError
from corank.training.callbacks.base import Callback
from corank.training.weights.parq import ParqWeight

if TYPE_CHECKING:
    from corank.training.state import TrainingState

__all__ = ["Steepen"]


@dataclass(frozen=True)
class Steepen(Callback):
    """Sets the inverse slope of every :class:`~corank.training.weights.Parq` weight.

    It is 1 at first, goes down to 0 from ``begin`` to ``until`` along a mirrored sigmoid, and stays there.

    Args:
        begin, until: shares of the steps.
        steepness: of the sigmoid; below 1 it is close to a straight line.
    """

    begin: float = 0.0
    until: float = 0.75
    steepness: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.until <= 1:
            raise ConfigError(
                f"begin={self.begin!r}, until={self.until!r}: shares of the steps, e.g. Steepen(0.0, 0.75)"
            )
        if not 0 < self.steepness <= 100:
            raise ConfigError(f"steepness={self.steepness!r}: above 0 and at most 100, e.g. Steepen(steepness=10.0)")

    def inverse(self, place: float) -> float:
        """The inverse slope where the share ``place`` of the steps is done."""
        way = (place - self.begin) / (self.until - self.begin)
        if way <= 0 or way >= 1:
            return float(way <= 0)
        top, bottom = _falling(self.steepness, 0.0), _falling(self.steepness, 1.0)
        return (_falling(self.steepness, way) - bottom) / (top - bottom)

    def start(self, state: TrainingState) -> None:
        running = [weight for _, _, weight in state.weights() if isinstance(weight, ParqWeight)]
        if not running:
            raise ConfigError("Steepen: no weight trains by Parq, e.g. Recipe(weights=Parq(Binary()))")
        kept = state.kept.get("steepen:inverse")
        self._set(state, self.inverse(0.0) if kept is None else float(kept))

    def step_done(self, state: TrainingState) -> None:
        state.measured["inverse slope"] = self.inverse(state.place)
        self._set(state, self.inverse((state.step + 1) / max(1, state.recipe.iterations)))

    def finished(self, state: TrainingState) -> None:
        self._set(state, 0.0)  # whatever still looks at the network sees what ships

    def _set(self, state: TrainingState, inverse: float) -> None:
        kept = torch.tensor(inverse, dtype=torch.float32)
        state.kept["steepen:inverse"] = kept
        for _, _, weight in state.weights():
            if isinstance(weight, ParqWeight):
                weight.steepen(float(kept))  # as rounded, so that a run that goes on has the same


def _falling(steepness: float, way: float) -> float:
    return 1 / (1 + math.exp(steepness * (way - 0.5)))
