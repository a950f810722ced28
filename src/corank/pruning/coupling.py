"""Channels that can only go together, as plain indices; and where in a layer's tensors they stand.

Legend: ``U`` units of a coupling, ``n`` channels of a side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from corank.layers.width import is_depthwise

__all__ = ["NORMS_ACROSS", "Coupling", "Side", "merged_units", "side_size", "tensors_of"]

NORMS_ACROSS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""Norms over channels: what they give of one channel hangs on the others, so that none goes without a trace."""


@dataclass(frozen=True)
class Side:
    """Channels of one side of a module.

    Attributes:
        module: its name; empty for the network itself.
        side: "out" (what it gives; of a norm or a depthwise convolution also what it reads), "in" (what it reads), or
            the name of a parameter that it holds itself, cut along ``axis``.
        index: ``(n,)`` channels of that side, int64.
        unit: ``(n,)`` the unit that each belongs to, int64.
        axis: of such a parameter.
    """

    module: str
    side: str
    index: Tensor
    unit: Tensor
    axis: int = 0


@dataclass(frozen=True)
class Coupling:
    """Units of channels of which each goes from all sides at once, or stays in all.

    Attributes:
        name: of the first layer that gives them.
        units: how many there are.
        sides: where they stand.
        heads: the attention module whose heads the units are; None for channels.
    """

    name: str
    units: int
    sides: tuple[Side, ...]
    heads: str | None = None

    def gives(self) -> Iterator[Side]:
        """The sides that make the channels: layers' outputs, norms behind them, parameters of their own."""
        return (side for side in self.sides if side.side != "in")

    def reads(self) -> Iterator[Side]:
        """The sides that read them."""
        return (side for side in self.sides if side.side == "in")


def side_size(module: nn.Module, side: Side) -> int:
    """The channels of a whole side of a module."""
    (name, axis, fold), *_ = tensors_of(module, side) or [("", 0, 1)]
    if not name:
        return _untold(module)
    tensor = module._parameters.get(name)
    tensor = module._buffers.get(name) if tensor is None else tensor
    return _untold(module) if tensor is None else tensor.shape[axis] * fold


def tensors_of(module: nn.Module, side: Side) -> list[tuple[str, int, int]]:
    """(parameter or buffer, axis, groups) that hold the side's channels; of ``groups`` above 1, the axis holds the
    channels of one group alone, and channel ``c`` stands at ``c`` modulo its length."""
    if isinstance(module, _ConvNd):
        if is_depthwise(module):
            return [("weight", 0, 1), ("bias", 0, 1)]
        if side.side == "out":
            return [("weight", 1, module.groups) if module.transposed else ("weight", 0, 1), ("bias", 0, 1)]
        return [("weight", 0, 1) if module.transposed else ("weight", 1, module.groups)]
    if isinstance(module, nn.Linear):
        return [("weight", 0, 1), ("bias", 0, 1)] if side.side == "out" else [("weight", 1, 1)]
    if isinstance(module, nn.Embedding):
        return [("weight", 1, 1)]
    if side.side not in ("out", "in"):
        return [(side.side, side.axis, 1)]
    return [(name, 0, 1) for name in ("weight", "bias", "running_mean", "running_var")]


def merged_units(unit: Tensor, keys: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, int]:
    """Units joined where channels must go together.

    Args:
        unit: ``(U,)`` the unit of each channel of the coupling's first side, 0 to U - 1.
        keys: pairs ``(unit (n,), key (n,))``: units with an equal key become one.

    Returns:
        ``(U,)`` the new unit of each old one, from 0 in order, and how many there are.
    """
    parent = list(range(len(unit)))

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    for units, key in keys:
        first: dict[int, int] = {}
        for one, value in zip(units.tolist(), key.tolist(), strict=True):
            a, b = root(first.setdefault(value, one)), root(one)
            parent[max(a, b)] = min(a, b)
    roots = [root(one) for one in range(len(unit))]
    places = {one: place for place, one in enumerate(sorted(set(roots)))}
    return torch.tensor([places[one] for one in roots], dtype=torch.int64, device="cpu"), len(places)


def _untold(module: nn.Module) -> int:
    """Channels of a norm that has no tensors."""
    sizes = [module.__dict__.get(name) for name in ("num_features", "num_channels", "num_parameters")]
    return next((size for size in sizes if size), 0) or int(module.__dict__["normalized_shape"][-1])
