"""What there is to see of a training: oscillations, codes that moved, norms of the weights behind them.

Oscillations are counted as Nagel et al. (arXiv 2203.11086) and OFQ (arXiv 2302.02210) do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from corank.errors import ConfigError
from corank.training.callbacks.base import Callback

if TYPE_CHECKING:
    from corank.training.state import TrainedLayer, TrainingState

__all__ = ["Meters"]


@dataclass(frozen=True)
class Meters(Callback):
    """Writes into the history, at every ``every``-th step:

    - ``oscillations``: how many codes moved against the way they moved last, over all layers;
    - ``moved``: the share of codes that are not what they were at the last look;
    - ``norm``: the mean over the layers of the norm of the float weights (or latents) that train.

    A code that goes and comes back between two looks is not seen: ``every=1`` counts as the papers do, at the price
    of rounding all weights once more each step. Two bytes a weight are remembered.

    Args:
        every: steps between two looks.
    """

    every: int = 10

    def __post_init__(self) -> None:
        if type(self.every) is not int or self.every < 1:
            raise ConfigError(f"every={self.every!r}: a positive number of steps, e.g. Meters(every=10)")

    @torch.no_grad()
    def start(self, state: TrainingState) -> None:
        for name, layer, weight in state.weights():
            if f"meters-codes:{name}" not in state.kept:
                codes = weight.coded(layer.matrix).codes
                state.kept[f"meters-codes:{name}"] = codes.clone()
                state.kept[f"meters-way:{name}"] = torch.zeros_like(codes, dtype=torch.int8)

    @torch.no_grad()
    def step_done(self, state: TrainingState) -> None:
        if (state.step + 1) % self.every:
            return
        counts, codes = [], 0
        for name, layer, weight in state.weights():
            now, last = weight.coded(layer.matrix), state.kept[f"meters-codes:{name}"]
            # by value: not every codec numbers its values in their order
            change = now.decode() - now.codebook.values(last)
            way = change.sign().to(torch.int8).masked_fill_(now.codes == last, 0)
            before = state.kept[f"meters-way:{name}"]
            counts.append(torch.stack([(way * before < 0).sum(), (now.codes != last).sum()]))
            codes += last.numel()
            state.kept[f"meters-codes:{name}"] = now.codes.clone()
            state.kept[f"meters-way:{name}"] = torch.where(way == 0, before, way)
        if codes:
            back, moved = torch.stack(counts).sum(0).tolist()
            state.measured.update(oscillations=float(back), moved=moved / codes)
        norms = [
            torch.stack([one.norm() for one in ones]).norm()
            for layer in state.layers.values()
            if (ones := _behind(layer))
        ]
        if norms:
            state.measured["norm"] = float(torch.stack(norms).mean())


def _behind(layer: TrainedLayer) -> list[Tensor]:
    """The float tensors that train in the place of a layer's weight."""
    if layer.weight is None or layer.weight.trains_weight:
        return [layer.latent]
    return [layer.weight.get_parameter(name) for name in layer.weight.latents]
