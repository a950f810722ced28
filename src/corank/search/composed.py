"""A copy of the model whose weights are composed anew, differentiably, at every step."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from corank.layers import names_of

__all__ = ["ComposedModel"]


class ComposedModel:
    """Runs a model with weights given from outside. The copy's other parameters are frozen."""

    def __init__(self, model: nn.Module, names: Mapping[str, object]) -> None:
        self.model = copy.deepcopy(model).eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        known = {name: identity for identity, names_ in names_of(self.model).items() for name in names_}
        modules = {id(module): module for module in self.model.modules()}
        self._layers = {name: modules[known[name]] for name in names}
        self._dtypes = {name: layer.get_parameter("weight").dtype for name, layer in self._layers.items()}
        for layer in self._layers.values():
            layer.__dict__["weight"] = layer._parameters.pop("weight")

    def set_weight(self, name: str, weight: Tensor) -> None:
        """Gives the layer a weight in its own shape and of any float, which it takes in its own; gradients flow into
        what was given."""
        self._layers[name].__dict__["weight"] = weight.to(self._dtypes[name])

    @property
    def device(self) -> torch.device:
        weights = (layer.__dict__["weight"] for layer in self._layers.values())
        return next(weights).device
