"""Weights are drawn to their codes by what it does to the output, in the manner of BiTAT (arXiv 2207.01394; a
reconstruction from its abstract)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from corank.calibration import run
from corank.errors import ConfigError
from corank.statistics import Gram
from corank.training.penalties.base import Penalty
from corank.watching import evaluating, input_of, watched

if TYPE_CHECKING:
    from corank.training.state import TrainedLayer, TrainingState

__all__ = ["Importance", "input_moments", "weighted_error"]

_RIDGE = 1e-3  # of an input's mean energy: fewer samples than inputs leave directions that nothing was seen of
_POSITIONS = 16  # of each sample's output


@dataclass(frozen=True)
class Importance(Penalty):
    """``weight * sum_l |diag(s) V^T (w - q)|^2``, where ``V diag(s^2) V^T`` is the second moment of the layer's inputs
    and ``q`` the value that the float weight ``w`` is rounded to now: the error of the layer's output.

    Each layer's error is relative to its output's energy, so that one factor serves all. The moments are those of the
    network as it is quantized at that time. Layers that compute with their float weight are left out.

    Args:
        weight: the factor.
        every: steps after which the moments are taken anew, on that step's batch.
    """

    weight: float = 0.1
    every: int = 50

    def __post_init__(self) -> None:
        if type(self.weight) not in (int, float) or not 0 <= self.weight <= 1e6:
            raise ConfigError(f"Importance(weight={self.weight!r}): a factor from 0, e.g. Importance(weight=0.1)")
        if type(self.every) is not int or self.every < 1:
            raise ConfigError(f"Importance(every={self.every!r}): a whole number of steps, e.g. 50")

    def __call__(self, state: TrainingState, loss: Tensor) -> Tensor:
        total = torch.zeros_like(loss)
        rounded = {name: layer for name, layer, weight in state.weights() if weight.rounds and weight.trains_weight}
        if not self.weight:
            return total
        due = state.step // self.every * self.every
        missing = {name: layer for name, layer in rounded.items() if _key(name) not in state.kept}
        if int(state.kept.get("importance-step:", torch.tensor(-1))) != due:
            missing, state.kept["importance-step:"] = rounded, torch.tensor(due)
        if missing:
            state.kept |= {_key(name): moment for name, moment in input_moments(state, missing).items()}
        for name, layer in rounded.items():
            weight, moment = layer.matrix, state.kept[_key(name)].to(loss.device)
            energy = weighted_error(weight.detach(), moment).clamp(min=1e-30)
            total = total + self.weight * weighted_error(weight - layer.computed().detach(), moment) / energy
        return total


def _key(name: str) -> str:
    return f"importance:{name}"


def weighted_error(error: Tensor, moment: Tensor) -> Tensor:
    """``sum_r |diag(s) V^T e_r|^2`` over the rows of ``error`` ``(G * R, C)``, a scalar, with ``V diag(s^2) V^T`` the
    ``moment`` ``(G, C, C)``; computed as ``e^T M e``, which is the same."""
    stacked = error.reshape(len(moment), -1, error.shape[1])
    return ((stacked @ moment) * stacked).sum()


def input_moments(state: TrainingState, layers: Mapping[str, TrainedLayer]) -> dict[str, Tensor]:
    """``E[x x^T]`` ``(G, C, C)`` and a ridge, of the inputs that the layers have in this step's batch, by name.

    The network runs as it is now, in evaluation mode, so that its norms see nothing of it.
    """
    found: dict[str, Gram] = {}
    draws = torch.Generator().manual_seed(state.seed + state.step)

    def watch(name: str) -> Callable[..., None]:
        geometry = layers[name].geometry

        def keep(_module: object, args: tuple[Any, ...], named: Mapping[str, Any], _output: object) -> None:
            rows = geometry.patches(input_of(args, named), _POSITIONS, draws)
            gram = found.setdefault(name, Gram(len(rows), rows.shape[2], rows.device))
            gram.update(rows, _POSITIONS)

        return keep

    modules = {name: layer.module for name, layer in layers.items()}
    with torch.no_grad(), evaluating(state.model), watched(modules, watch):
        run(state.model, state.batch, state.device)
    for gram in found.values():
        gram.reduce()
    return {name: _with_ridge(gram.matrix) for name, gram in found.items()}


def _with_ridge(moment: Tensor) -> Tensor:
    mean = moment.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    return moment + _RIDGE * mean * torch.eye(moment.shape[1], dtype=moment.dtype, device=moment.device)
