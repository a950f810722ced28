"""The model as it is while it is refined: coded weights composed from what trains."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from corank.layers import CodedLayer, CodedLayerState, InputRounder, names_of
from corank.refine.refinement import Refinement
from corank.refine.trainable_layer import TrainableLayer

__all__ = ["Latent", "TrainableModel", "coded_layers"]


class Latent(Protocol):
    """What of a coded layer trains, such as :class:`~corank.refine.trainable_layer.TrainableLayer`."""

    def trained(self) -> Iterator[tuple[str, Tensor, float]]:
        """Kind, parameter and learning rate of what trains."""
        ...

    def weight(self) -> Tensor:
        """The weight in the layer's own shape, differentiable in everything that trains."""
        ...

    def inputs(self) -> InputRounder | None:
        """What rounds the layer's inputs."""
        ...

    def harden(self) -> CodedLayerState:
        """What ships."""
        ...


def coded_layers(model: nn.Module) -> dict[str, CodedLayer]:
    """The coded layers by name; a shared one goes by its first name."""
    names = names_of(model)
    return {names[id(module)][0]: module for module in model.modules() if isinstance(module, CodedLayer)}


class TrainableModel(nn.Module):
    """A copy of a coded model whose weights, biases and norms train; norm statistics stay as they are.

    Its parameters, and its state, are what trains alone: the copy itself is no submodule, so that a checkpoint holds
    nothing that stays as it was.

    Args:
        model: holds :class:`~corank.layers.CodedLayer` modules; it is not changed.
        refinement: says how fast biases and norms train, and all else where there are no ``latents``.
        latents: of the coded layers that train, by name; None: what a refinement trains, of each.
        vectors: names of the biases and norms that train; None for all.

    Attributes:
        network: the copy.
        layers: its coded layers by name.
        latents: what of them trains.
        vectors: biases and what norms multiply and add, by name, in float32 or wider.
    """

    network: nn.Module

    def __init__(
        self,
        model: nn.Module,
        refinement: Refinement,
        latents: Mapping[str, Latent] | None = None,
        vectors: Collection[str] | None = None,
    ) -> None:
        super().__init__()
        object.__setattr__(self, "network", copy.deepcopy(model).eval().requires_grad_(False))
        self.layers = coded_layers(self.network)
        if latents is None:
            latents = {name: TrainableLayer(layer, refinement) for name, layer in self.layers.items()}
        self.latents = latents
        self._rates = refinement
        named = [(name, one) for name, one in self.network.named_parameters() if vectors is None or name in vectors]
        own = {name: one for name, one in named if one.is_floating_point() and one.dim() == 1}
        self.vectors = {name: one if one.dtype.itemsize > 2 else _widened(one) for name, one in own.items()}
        self._cast = _taken_out(self.network, {id(own[name]): one for name, one in self.vectors.items()})
        for parameter in self.vectors.values():
            parameter.requires_grad_(True)
        for name, parameter, _ in self.trained():
            self.register_parameter(name.replace(".", "/"), cast(nn.Parameter, parameter))

    def trained(self) -> Iterator[tuple[str, Tensor, float]]:
        """Name, parameter and learning rate of all that trains, in a fixed order."""
        for name, parameter in self.vectors.items():
            yield f"vector:{name}", parameter, self._rates.bias_rate
        for name, latent in self.latents.items():
            for kind, parameter, rate in latent.trained():
                yield f"{kind}:{name}", parameter, rate

    def forward(self, *given: Any, **named: Any) -> Any:
        """The network's output, differentiable in all that trains. Where inputs keep their float value at random,
        torch's own generator says which."""
        for module, name, vector, dtype in self._cast:
            module.__dict__[name] = vector.to(dtype)
        with ExitStack() as lent:
            for name, latent in self.latents.items():
                lent.enter_context(self.layers[name].computing_with(latent.weight(), self._fed(latent.inputs())))
            return self.network(*given, **named)

    def _fed(self, inputs: InputRounder | None) -> Callable[[Tensor], Tensor] | None:
        share = self._rates.drop
        if inputs is None or share == 0:
            return inputs

        def some(given: Tensor) -> Tensor:
            kept = torch.rand(given.shape, dtype=torch.float32, device=given.device) < share
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


def _widened(vector: nn.Parameter) -> nn.Parameter:
    """In float32: steps of a half-precision number would mostly be lost in its rounding."""
    return nn.Parameter(vector.detach().float())


def _taken_out(
    model: nn.Module, widened: Mapping[int, nn.Parameter]
) -> list[tuple[nn.Module, str, nn.Parameter, torch.dtype]]:
    """Puts plain attributes in the place of the parameters that train in another dtype, by identity.

    Returns:
        Module, attribute, what trains, and the dtype in which the attribute is to hold it.
    """
    places = []
    for module in model.modules():
        for name, own in list(module._parameters.items()):
            vector = widened.get(id(own))
            if own is not None and vector is not None and vector is not own:
                places.append((module, name, vector, own.dtype))
                module.__dict__[name] = module._parameters.pop(name)
    return places
