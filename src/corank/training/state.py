"""A training under way: what callbacks and penalties see of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from corank.matrix import Geometry
from corank.training.inputs import TrainableInputs
from corank.training.weights import TrainableWeight
from corank.training.weights.forgetful import forgetful

__all__ = ["TrainedLayer", "TrainingState", "parametrized"]


class _Weight(nn.Module):
    """torch's parametrization: the layer's weight, through its matrix."""

    def __init__(self, geometry: Geometry, inner: TrainableWeight) -> None:
        super().__init__()
        self._geometry, self.inner = geometry, inner

    def forward(self, weight: Tensor) -> Tensor:
        if not self.inner.rounds:
            return weight
        matrix = self._geometry.to_matrix(weight).flatten(0, 1)
        used = forgetful(self.inner, matrix) if self.inner.forgets else self.inner(matrix)
        return self._geometry.from_matrix(used)


@dataclass
class TrainedLayer:
    """One layer while it trains: a parameter of a module, addressed by both names.

    Attributes:
        module: of the network that trains.
        parameter: the parameter's name in it.
        geometry: how it is a matrix.
        weight: how it trains; None for a float weight.
        inputs: what rounds the layer's inputs; None for float inputs.
    """

    module: nn.Module
    geometry: Geometry
    weight: TrainableWeight | None = None
    inputs: TrainableInputs | None = None
    parameter: str = "weight"

    @property
    def latent(self) -> nn.Parameter:
        """The float weight that trains, in the layer's own shape."""
        if self.weight is None:
            return self.module.get_parameter(self.parameter)
        return self.module.get_parameter(f"parametrizations.{self.parameter}.original")

    @property
    def matrix(self) -> Tensor:
        """The float weight ``(R, C)``; in place changes change the parameter unless the layer is transposed."""
        return self.geometry.to_matrix(self.latent).flatten(0, 1)

    def computed(self) -> Tensor:
        """The weight ``(R, C)`` that the layer computes with, differentiable."""
        return self.matrix if self.weight is None or not self.weight.rounds else self.weight(self.matrix)

    def plain(self, weight: Tensor) -> nn.Module:
        """The layer without its way of training, holding ``weight`` in its own shape.

        torch's own removal would take the weight off the class, which copies of the network share.
        """
        kind = parametrize.type_before_parametrizations(self.module)
        found = cast(nn.Module, object.__new__(kind))
        nn.Module.__init__(found)
        state = dict(self.module.__dict__)
        own = {name: one for name, one in self.module._parameters.items() if name != self.parameter}
        inner = {name: one for name, one in self.module._modules.items() if name != "parametrizations"}
        state.update({name: found.__dict__[name] for name in found.__dict__ if name.endswith("_hooks")})
        state.update({"_parameters": {**own, self.parameter: nn.Parameter(weight.detach())}, "_modules": inner})
        found.__dict__.update(state)
        return found

    def rewrite(self, matrix: Tensor) -> None:
        """Sets the float weight from ``(R, C)``."""
        with torch.no_grad():
            self.latent.copy_(self.geometry.from_matrix(matrix))


def parametrized(layer: TrainedLayer) -> None:
    """Puts the layer's way of training in the place of its weight."""
    if layer.weight is not None:
        parametrize.register_parametrization(
            layer.module, layer.parameter, _Weight(layer.geometry, layer.weight), unsafe=True
        )
        layer.latent.requires_grad_(layer.weight.trains_weight)


@dataclass
class TrainingState:
    """What a training is at, handed to callbacks and penalties.

    Attributes:
        recipe: that is carried out.
        model: the network that trains, in training mode where its norms adapt.
        teacher: the float network, for penalties of a refinement that compare layers with it; None otherwise: what it
            gives for the batch is ``reference``.
        layers: by name, in the order they run.
        seed: of all draws.
        step: the number of the step under way, from 0.
        batch, labels: of the step (or its part) under way; labels are None where there are none.
        share: of the part's samples among those of the step, over all processes.
        first: whether the part is the step's first.
        output, reference: what network and teacher gave for it.
        outputs: what layers gave for it, by name, one for each call, where a penalty watches them.
        closing: what is closed when the training ends or fails, such as hooks.
        kept: what callbacks and penalties remember, by names that begin with their kind's; a checkpoint holds it.
        measured: numbers of this step for the history, by name.
        groups: what trains, and at which peak rates, as torch's optimizers take it; empty: all that the recipe's
            weights, inputs and norms have, at the rates of its optimizer.
        history: one entry for each step so far.
        bfloat16: whether passes are in it, by autocast.
        norms: by layer, the batch norm that alone reads its output.
    """

    recipe: Any  # a Recipe, whose callbacks and penalties import this file
    model: nn.Module
    teacher: nn.Module | None
    layers: dict[str, TrainedLayer]
    seed: int = 0
    step: int = 0
    batch: Any = None
    labels: Tensor | None = None
    share: float = 1.0
    first: bool = True
    output: Any = None
    reference: Any = None
    optimizer: torch.optim.Optimizer | None = None
    outputs: dict[str, list[Tensor]] = field(default_factory=dict)
    closing: ExitStack = field(default_factory=ExitStack)
    kept: dict[str, Tensor] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)
    groups: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    bfloat16: bool = False
    norms: dict[str, nn.Module] = field(default_factory=dict)

    @property
    def place(self) -> float:
        """Share of the steps that is done, from 0 to below 1."""
        return self.step / max(1, self.recipe.iterations)

    @property
    def device(self) -> torch.device:
        """Where the network trains."""
        return next(self.model.parameters()).device

    def weights(self) -> Iterator[tuple[str, TrainedLayer, TrainableWeight]]:
        """The layers whose weight trains in a low-bit way."""
        for name, layer in self.layers.items():
            if layer.weight is not None:
                yield name, layer, layer.weight
