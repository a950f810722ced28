"""The schedule of BinaryRelax (arXiv 1801.06313): the weights' blend leans ever more on their codes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from corank.errors import ConfigError
from corank.training.callbacks.base import Callback
from corank.training.weights.relaxed import RelaxedWeight

if TYPE_CHECKING:
    from corank.training.state import TrainingState

__all__ = ["Relax"]


@dataclass(frozen=True)
class Relax(Callback):
    """Sets ``eta`` of every :class:`~corank.training.weights.Relaxed` weight to ``first * growth^(place / until)``.

    ``place`` is the share of the steps that is done; from ``until`` on the weights are their codes alone.

    The authors multiply by 1.04 an epoch for 150 epochs of 200, which is ``growth`` and ``until`` here, in a run of any
    length.

    Args:
        first: ``eta`` of the first step.
        growth: by how much ``eta`` is larger at ``until``.
        until: share of the steps.
    """

    first: float = 1.0
    growth: float = 359.0
    until: float = 0.75

    def __post_init__(self) -> None:
        if not 0 <= self.first < math.inf or not 1 <= self.growth < math.inf:
            raise ConfigError(
                f"first={self.first!r}, growth={self.growth!r}: numbers from 0 and from 1, e.g. Relax(1, 359)"
            )
        if not 0 < self.until <= 1:
            raise ConfigError(f"until={self.until!r}: a share of the steps above 0, e.g. Relax(until=0.75)")

    def eta(self, place: float) -> float:
        """``eta`` where the share ``place`` of the steps is done."""
        return math.inf if place >= self.until else self.first * self.growth ** (place / self.until)

    def start(self, state: TrainingState) -> None:
        running = [weight for _, _, weight in state.weights() if isinstance(weight, RelaxedWeight)]
        if not running:
            raise ConfigError(
                "Relax: no weight trains by Relaxed, e.g. Recipe(weights=Relaxed(StraightThrough(Binary())))"
            )
        kept = state.kept.get("relax:eta")
        self._set(state, self.eta(0.0) if kept is None else float(kept))

    def step_done(self, state: TrainingState) -> None:
        eta = self.eta(state.place)
        state.measured["share of codes"] = 1.0 if math.isinf(eta) else eta / (1 + eta)
        self._set(state, self.eta((state.step + 1) / max(1, state.recipe.iterations)))

    def finished(self, state: TrainingState) -> None:
        self._set(state, math.inf)  # whatever still looks at the network sees what ships

    def _set(self, state: TrainingState, eta: float) -> None:
        kept = torch.tensor(eta, dtype=torch.float32)
        state.kept["relax:eta"] = kept
        for _, _, weight in state.weights():
            if isinstance(weight, RelaxedWeight):
                weight.relax(float(kept))  # as rounded, so that a run that goes on has the same
