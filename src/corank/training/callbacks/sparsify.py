"""Weights that become zero while they train, the smallest first (Zhu and Gupta, arXiv 1710.01878)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from corank.errors import ConfigError
from corank.rounding.pruned import smallest
from corank.training.callbacks.base import Callback

if TYPE_CHECKING:
    from corank.training.state import TrainedLayer, TrainingState

__all__ = ["Sparsify"]


@dataclass(frozen=True)
class Sparsify(Callback):
    """After every step, sets to zero what was chosen: in each layer the smallest weights in magnitude.

    Their share grows as ``sparsity * (1 - (1 - p)^3)``, ``p`` going from 0 at ``begin`` to 1 at ``until``; who belongs
    to it is decided anew at every ``every``-th step. What is zero stays so.

    The network that comes out holds exact zeros: a float one is coded with them by ``LayerPlan(sparsity=...)``, and of
    one whose weights train as codes they are the code of zero, which an entropy coder stores in little.

    Args:
        sparsity: of each layer's weights, the share that is zero in the end.
        begin, until: shares of the steps.
        every: steps between two choices.
        edges: whether the first and the last layer, too, become sparse.
    """

    sparsity: float = 0.9
    begin: float = 0.0
    until: float = 0.5
    every: int = 5
    edges: bool = False

    def __post_init__(self) -> None:
        if type(self.sparsity) not in (int, float) or not 0 <= self.sparsity < 1:
            raise ConfigError(f"Sparsify(sparsity={self.sparsity!r}): a share of the weights below 1, e.g. 0.9")
        if not 0 <= self.begin < self.until <= 1:
            raise ConfigError(
                f"begin={self.begin!r}, until={self.until!r}: shares of the steps, the first before the second, e.g. "
                "Sparsify(0.9, begin=0.0, until=0.5)"
            )
        if type(self.every) is not int or self.every < 1:
            raise ConfigError(f"every={self.every!r}: a positive number of steps, e.g. Sparsify(every=5)")

    def share(self, place: float) -> float:
        """Of the weights that are zero where the share ``place`` of the steps is done."""
        done = min(1.0, max(0.0, (place - self.begin) / (self.until - self.begin)))
        return self.sparsity * (1 - (1 - done) ** 3)

    def start(self, state: TrainingState) -> None:
        if state.recipe.average:
            raise ConfigError("Sparsify: averaged weights are not those that were set to zero; Recipe(average=0)")
        for name, layer in self._sparse(state).items():
            _check(name, layer)

    @torch.no_grad()
    def step_done(self, state: TrainingState) -> None:
        done = state.step + 1
        share = self.share(done / max(1, state.recipe.iterations))
        chooses = done % self.every == 0 or done == state.recipe.iterations
        zero = total = 0
        for name, layer in self._sparse(state).items():
            key = f"sparsify:{name}"
            if chooses and share:
                state.kept[key] = smallest(layer.matrix, share)
            if key in state.kept:
                layer.rewrite(layer.matrix.masked_fill(state.kept[key], 0))
            if chooses:
                total += layer.latent.numel()
                zero += layer.latent.numel() - int(layer.latent.count_nonzero())
        if chooses:
            state.measured["sparsity"] = zero / max(1, total)

    def _sparse(self, state: TrainingState) -> dict[str, TrainedLayer]:
        names = list(state.layers)
        return {name: state.layers[name] for name in (names if self.edges else names[1:-1])}


def _check(name: str, layer: TrainedLayer) -> None:
    """Raises ConfigError for a layer that cannot hold a weight of zero."""
    way = layer.weight
    if way is None:
        return
    if way.trains_weight and not way.latents:
        if way.codec is None:
            return
        book = way.coded(layer.matrix.detach()).codebook
        zeros = torch.zeros_like(layer.matrix)
        if not bool(book.values(book.nearest(zeros)).count_nonzero()):
            return
    raise ConfigError(
        f"Sparsify: layer {name!r} trains by {type(way).__name__} of {way.codec}, which has no code of zero in every "
        "row, e.g. LearnedStep(Uniform(4, range='mse')) has one; or weights=None"
    )
