"""Layers become low-bit one after the other, from the input on, in the manner of BiTAT (arXiv 2207.01394; a
reconstruction from its abstract)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from corank.coded_weight import CodedWeight
from corank.errors import ConfigError
from corank.rounding.refit import alternate
from corank.training.callbacks.base import Callback
from corank.training.penalties.importance import input_moments
from corank.training.weights import WeightStart

if TYPE_CHECKING:
    from corank.training.state import TrainedLayer, TrainingState

__all__ = ["LayerByLayer"]

_REACHED = "layer-by-layer:reached"


@dataclass(frozen=True)
class LayerByLayer(Callback):
    """Layer ``k`` of ``n`` computes with its float weight until the share ``until * k / n`` of the steps is done.

    When a layer is reached, its codes and scales are those of small output error for the inputs that it has from the
    quantized layers before it (:func:`~corank.rounding.refit.alternate`; at one bit the input-weighted binarization of
    BiTAT), and it trains on from there.

    Args:
        until: share of the steps after which all layers are low-bit.
        rounds: of fitting codes and scales to each other when a layer is reached; 0 leaves the nearest codes.
    """

    until: float = 0.2
    rounds: int = 4

    def __post_init__(self) -> None:
        if type(self.until) not in (int, float) or not 0 <= self.until <= 1:
            raise ConfigError(f"until={self.until!r}: a share of the steps, e.g. LayerByLayer(until=0.2)")
        if type(self.rounds) is not int or not 0 <= self.rounds <= 100:
            raise ConfigError(f"rounds={self.rounds!r}: a whole number from 0 to 100, e.g. LayerByLayer(rounds=4)")

    def start(self, state: TrainingState) -> None:
        self._reach(state, int(state.kept.setdefault(_REACHED, torch.tensor(self._count(state, 0.0)))))

    def step_done(self, state: TrainingState) -> None:
        now = self._count(state, (state.step + 1) / max(1, state.recipe.iterations))
        reached = [name for name, _, _ in state.weights()][int(state.kept[_REACHED]) : now]
        self._reach(state, now)
        # In this order: the inputs of a layer come from those before it as they are quantized then.
        for name in reached if self.rounds else []:
            layer = state.layers[name]
            self._weigh(state, layer, input_moments(state, {name: layer})[name])

    def finished(self, state: TrainingState) -> None:
        self._reach(state, self._count(state, 1.0))

    def _count(self, state: TrainingState, place: float) -> int:
        """How many layers are reached once the share ``place`` of the steps is done."""
        total = sum(1 for _ in state.weights())
        return sum(1 for number in range(total) if place * total >= self.until * number)

    def _reach(self, state: TrainingState, count: int) -> None:
        for number, (_, _, weight) in enumerate(state.weights()):
            weight.rounds = number < count
        state.kept[_REACHED] = torch.tensor(count)

    def _weigh(self, state: TrainingState, layer: TrainedLayer, moment: Tensor) -> None:
        """Fits codes and scales to the inputs' ``moment``, and goes on from there. Layers of another codec than the
        recipe's (the first and last, or such as are named) stay at their nearest codes."""
        how, weight = state.recipe.weights, layer.weight
        if how is None or weight is None or weight.codec is None or weight.codec != how.stored:
            return
        matrix = layer.matrix.detach()
        book, codes = alternate(weight.codec.fit(matrix), matrix, moment, self.rounds)
        fresh, latent = how.start(WeightStart(matrix, CodedWeight(codes, book)))
        weight.load_state_dict(fresh.state_dict())
        layer.rewrite(latent)
