"""What channels cost: multiply-adds and parameters of a network with some of its units gone, without building it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from corank.pruning.coupling import Coupling, side_size, tensors_of
from corank.watching import watched

__all__ = ["Costs", "multiply_adds", "positions_of"]


def positions_of(model: nn.Module, run: Callable[[nn.Module], Any], samples: int) -> dict[str, float]:
    """By layer, how often a sample makes each of its weights multiply: output positions of a convolution or linear
    layer, over all its calls.

    Args:
        model: in evaluation mode.
        run: calls it on ``samples`` samples.
        samples: in that batch.
    """
    layers = {name: one for name, one in model.named_modules() if isinstance(one, (_ConvNd, nn.Linear))}
    found = dict.fromkeys(layers, 0.0)

    def count(name: str) -> Callable[..., None]:
        def add(module: nn.Module, args: tuple[Any, ...], _named: object, output: Tensor) -> None:
            if isinstance(module, _ConvNd) and module.transposed and args:
                found[name] += args[0].numel() / module.in_channels / samples
            else:
                found[name] += output.numel() / _outputs(module) / samples

        return add

    with torch.no_grad(), watched(layers, count):
        run(model)
    return found


def multiply_adds(model: nn.Module, positions: Mapping[str, float]) -> int:
    """Multiply-adds of a sample in convolutions and linear layers; products of activations are not in it."""
    modules = dict(model.named_modules())
    return round(sum(modules[name].get_parameter("weight").numel() * count for name, count in positions.items()))


@dataclass(frozen=True)
class Costs:
    """A network's cost as a function of the units that go.

    Attributes:
        terms: (weight, base, parts) for each tensor: it costs ``weight`` times what :attr:`sizes` leave of it.
        sizes: by module and side, its channels.
        sides: by module and side, the couplings that it has part in: place and channels of each unit.
    """

    terms: tuple[tuple[float, float, tuple[tuple[str, str], ...]], ...]
    sizes: Mapping[tuple[str, str], int]
    sides: Mapping[tuple[str, str], tuple[tuple[int, Tensor], ...]]

    @classmethod
    def of(cls, model: nn.Module, couplings: Sequence[Coupling], positions: Mapping[str, float] | None) -> Costs:
        """Multiply-adds by ``positions``; parameters where that is None."""
        modules = dict(model.named_modules())
        sizes: dict[tuple[str, str], int] = {}
        sides: dict[tuple[str, str], list[tuple[int, Tensor]]] = {}
        cut: dict[str, dict[str, list[tuple[str, str]]]] = {}
        for place, coupling in enumerate(couplings):
            for side in coupling.sides:
                key, module = (side.module, side.side), modules[side.module]
                if key not in sizes:
                    sizes[key] = side_size(module, side)
                    for name, _, _ in tensors_of(module, side):
                        cut.setdefault(side.module, {}).setdefault(name, []).append(key)
                sides.setdefault(key, []).append((place, torch.bincount(side.unit, minlength=coupling.units)))
        terms = []
        for name, module in modules.items():
            for parameter, tensor in module._parameters.items():
                weight = 1.0 if positions is None else positions.get(name, 0.0) * (parameter == "weight")
                if tensor is not None and weight:
                    parts = tuple(cut.get(name, {}).get(parameter, ()))
                    terms.append((weight, float(tensor.numel()), parts))
        return cls(tuple(terms), sizes, {key: tuple(found) for key, found in sides.items()})

    def __call__(self, removed: Mapping[int, Tensor]) -> float:
        """The cost without those units, by place of their coupling a mask ``(U,)``."""
        shares: dict[tuple[str, str], float] = {}
        for key, parts in self.sides.items():
            gone = sum(int(counts[removed[place]].sum()) for place, counts in parts if place in removed)
            shares[key] = 1 - gone / self.sizes[key]
        return sum(weight * size * math.prod(shares[key] for key in parts) for weight, size, parts in self.terms)


def _outputs(module: nn.Module) -> int:
    assert isinstance(module, (_ConvNd, nn.Linear))
    return module.out_channels if isinstance(module, _ConvNd) else module.out_features
