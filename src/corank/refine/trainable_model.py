"""The model as it is while it is refined: coded weights composed from what trains."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from corank.calibration import run
from corank.layers import CodedLayer, InputQuantizer, names_of
from corank.refine.refinement import Refinement
from corank.refine.trainable_layer import TrainableLayer

__all__ = ["TrainableModel", "coded_layers", "dtype_of"]


def coded_layers(model: nn.Module) -> dict[str, CodedLayer]:
    """The coded layers by name; a shared one goes by its first name."""
    names = names_of(model)
    return {names[id(module)][0]: module for module in model.modules() if isinstance(module, CodedLayer)}


def dtype_of(layer: CodedLayer) -> torch.dtype:
    """Of the weight that a coded layer composes, whatever its codes are kept in."""
    return cast(Tensor, layer._buffers["_float"]).dtype


class TrainableModel:
    """A copy of a coded model whose weights, biases and norms train; norm statistics stay as they are."""

    def __init__(self, model: nn.Module, refinement: Refinement) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.layers = coded_layers(self.model)
        self.latents = {name: TrainableLayer(layer, refinement) for name, layer in self.layers.items()}
        self._rates = refinement
        device = next(iter(self.latents.values())).device
        self._draws = torch.Generator(device)
        self.vectors = {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if parameter.is_floating_point() and parameter.dim() == 1
        }
        for parameter in self.vectors.values():
            parameter.requires_grad_(True)

    def trained(self) -> Iterator[tuple[str, Tensor, float]]:
        """Name, parameter and learning rate of all that trains, in a fixed order."""
        for name, parameter in self.vectors.items():
            yield f"vector:{name}", parameter, self._rates.bias_rate
        for name, latent in self.latents.items():
            for kind, parameter, rate in latent.trained():
                yield f"{kind}:{name}", parameter, rate

    def __call__(self, batch: Any, device: torch.device) -> Any:
        """The model's output, differentiable in all that trains."""
        for name, layer in self.layers.items():
            latent = self.latents[name]
            layer._cache = latent.weight().to(dtype_of(layer))  # of another float it would be composed anew
            layer._feed = self._fed(latent.inputs())
        try:
            return run(self.model, batch, device)
        finally:
            for layer in self.layers.values():
                layer._cache = layer._feed = None

    def draw_drops(self, seed: int) -> None:
        """Begins the draws of the inputs that keep their float value anew."""
        self._draws.manual_seed(seed)

    def _fed(self, inputs: InputQuantizer | None) -> Callable[[Tensor], Tensor] | None:
        share = self._rates.drop
        if inputs is None or share == 0:
            return inputs

        def some(given: Tensor) -> Tensor:
            kept = torch.rand(given.shape, generator=self._draws, dtype=torch.float32, device=given.device) < share
            return torch.where(kept, given, inputs(given))

        return some

    def harden_into(self, model: nn.Module) -> None:
        """Puts what was trained into ``model`` as it ships: whole codes, fp16 scales and biases, coded factors."""
        parameters = dict(model.named_parameters())
        layers = coded_layers(model)
        with torch.no_grad():
            for name, trained in self.vectors.items():
                stored = trained.detach().to(torch.float16).to(trained.dtype)
                parameters[name].copy_(torch.where(torch.isfinite(stored), stored, parameters[name]))
            for name, latent in self.latents.items():
                layers[name].fill(latent.harden(), cast(Tensor | None, layers[name].bias))
