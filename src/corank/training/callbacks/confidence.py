"""Confidence-guided annealing, the second phase of OFQ (arXiv 2302.02210): only undecided weights still train."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from corank.codecs import ScalarCodebook
from corank.errors import ConfigError
from corank.training.callbacks.base import Callback
from corank.training.weights.learned_step import LearnedStepWeight
from corank.training.weights.straight_through import StraightThroughWeight

if TYPE_CHECKING:
    from corank.training.state import TrainedLayer, TrainingState

__all__ = ["Confidence", "is_undecided"]


@dataclass(frozen=True)
class Confidence(Callback):
    """Every step moves the weights near a rounding threshold alone; all others stay as they are, bit for bit.

    Before the optimizer's step the gradients of the others are zeroed, and after it their values are put back, which
    undoes decay and momentum. Which weights those are is asked anew every step.

    Args:
        band: how near, to either side, as a share of the distance between the two levels that meet there.
        from_share: of the steps, from which on it does so.
    """

    band: float = 0.005
    from_share: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.band <= 0.5:
            raise ConfigError(f"band={self.band!r}: a share of a level's width, above 0 to 0.5, e.g. Confidence(0.005)")
        if not 0 <= self.from_share < 1:
            raise ConfigError(f"from_share={self.from_share!r}: a share of the steps, from 0 to below 1, e.g. 0.9")

    def start(self, state: TrainingState) -> None:
        if not any(True for _ in _rounded(state)):
            raise ConfigError(
                "Confidence needs weights that round to levels between thresholds, and no layer of this training has "
                "them; e.g. Recipe(weights=StraightThrough(StatsQ(2)), callbacks=(Confidence(),))"
            )

    @torch.no_grad()
    def gradients_ready(self, state: TrainingState) -> None:
        if state.place < self.from_share:
            return
        for name, layer, book in _rounded(state):
            undecided = layer.geometry.from_matrix(is_undecided(book, layer.matrix, self.band))
            latent = layer.latent
            if latent.grad is not None:
                latent.grad.masked_fill_(~undecided, 0)
            state.kept[f"confidence:{name}"] = latent.clone()
            state.kept[f"confidence-undecided:{name}"] = undecided

    @torch.no_grad()
    def step_done(self, state: TrainingState) -> None:
        for name, layer in state.layers.items():
            before = state.kept.pop(f"confidence:{name}", None)
            if before is not None:
                undecided = state.kept.pop(f"confidence-undecided:{name}")
                layer.latent.copy_(torch.where(undecided, layer.latent, before))


def is_undecided(book: ScalarCodebook, weight: Tensor, band: float) -> Tensor:
    """Which weights lie within ``band`` of a threshold between two levels: bool ``(R, C)``.

    Args:
        book: that rounds ``weight`` ``(R, C)``.
        band: as a share of the distance between the two levels.
    """
    thresholds = book.middles
    level, gaps = book.in_levels(weight), book.levels.diff()
    above = torch.bucketize(level.contiguous(), thresholds).clamp(max=len(thresholds) - 1)
    found = torch.zeros_like(level, dtype=torch.bool)
    for index in ((above - 1).clamp(min=0), above):
        # levels that are repeated meet nowhere
        found |= ((level - thresholds[index]).abs() <= band * gaps[index]) & (gaps[index] > 0)
    return found


def _rounded(state: TrainingState) -> Iterator[tuple[str, TrainedLayer, ScalarCodebook]]:
    for name, layer, weight in state.weights():
        if isinstance(weight, StraightThroughWeight | LearnedStepWeight):
            book = weight.book(layer.matrix)
            if isinstance(book, ScalarCodebook):
                yield name, layer, book
