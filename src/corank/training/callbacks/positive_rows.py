"""Rows of one layer that stay at or above zero (weight aligning, arXiv 1911.07053, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from corank.errors import ConfigError
from corank.training.callbacks.base import Callback

if TYPE_CHECKING:
    from corank.training.state import TrainingState

__all__ = ["PositiveRows"]


@dataclass(frozen=True)
class PositiveRows(Callback):
    """After every step, sets the negative weights of one layer to zero.

    Behind a ReLU, whose outputs are not negative either, the length of a class's row then says how large its logit is.
    Of rows with both signs it does not: two of equal length may differ in every logit.

    Args:
        layer: its name.
    """

    layer: str

    def __post_init__(self) -> None:
        if not isinstance(self.layer, str):
            raise ConfigError(f"PositiveRows({self.layer!r:.60}): the name of a layer, e.g. PositiveRows('fc')")

    def start(self, state: TrainingState) -> None:
        if self.layer not in state.layers:
            raise ConfigError(
                f"PositiveRows({self.layer!r:.60}): no layer that trains has that name; there are "
                f"{', '.join(map(repr, list(state.layers)[-3:]))}"
            )
        way = state.layers[self.layer].weight
        if way is not None and (way.latents or not way.trains_weight):
            raise ConfigError(
                f"PositiveRows: the layer {self.layer!r} trains by {type(way).__name__}, which has no weight of its "
                "own to keep positive, e.g. Recipe(edge=StraightThrough(Uniform(8), refit=1)) has one"
            )

    @torch.no_grad()
    def step_done(self, state: TrainingState) -> None:
        layer = state.layers[self.layer]
        layer.rewrite(layer.matrix.clamp(min=0))
