"""Channels taken out of a network, or set to zero in it, in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from corank.layers import STRUCTURE, Structure, structure_of, with_widths
from corank.layers.width import HEADS, OF_HEADS, is_depthwise, resize
from corank.pruning.coupling import Coupling, Side, side_size, tensors_of

__all__ = ["Removed", "mask", "remove", "removed_channels"]

Removed = Mapping[int, Tensor]
"""By place of a coupling, a mask ``(U,)`` of the units that go."""


def removed_channels(couplings: Sequence[Coupling], removed: Removed) -> dict[tuple[str, str], tuple[Side, Tensor]]:
    """By module and side, the side and the channels that go, ``(n,)`` in order."""
    found: dict[tuple[str, str], tuple[Side, list[Tensor]]] = {}
    for place, units in removed.items():
        for side in couplings[place].sides:
            gone = side.index[units[side.unit]]
            if len(gone):
                found.setdefault((side.module, side.side), (side, []))[1].append(gone)
    return {key: (side, torch.cat(parts).unique()) for key, (side, parts) in found.items()}


@torch.no_grad()
def remove(model: nn.Module, couplings: Sequence[Coupling], removed: Removed) -> Structure:
    """Takes the units out of all their layers, in place; what is left keeps its order and values.

    Returns:
        How the network differs from its class then, which it also carries; see
        :func:`~corank.layers.structure.structure_of`.
    """
    modules, kept = dict(model.named_modules()), dict[str, dict[str, Tensor]]()
    sizes: dict[str, dict[str, Any]] = {}
    for (name, _), (side, gone) in removed_channels(couplings, removed).items():
        module = modules[name]
        size = side_size(module, side)
        stays = torch.ones(size, dtype=torch.bool, device="cpu")
        stays[gone] = False
        sizes.setdefault(name, {}).update(_sizes(module, side, int(stays.sum())))
        own = kept.setdefault(name, {})
        for tensor, axis, groups in tensors_of(module, side):
            value = own.get(tensor, _tensor(module, tensor))
            if value is not None:
                rows = stays[: size // groups].nonzero()[:, 0].to(value.device)
                own[tensor] = value.index_select(axis, rows)
    for coupling, units in ((couplings[place], units) for place, units in removed.items()):
        if coupling.heads is not None:
            sizes.setdefault(coupling.heads, {}).update(_fewer_heads(modules[coupling.heads], int(units.sum())))
    for name, own in sizes.items():
        resize(modules[name], own)
        for tensor, value in kept.get(name, {}).items():
            held = _tensor(modules[name], tensor)
            assert held is not None
            held.copy_(value)
    structure = with_widths(structure_of(model), sizes)
    model.__dict__[STRUCTURE] = structure
    return structure


@torch.no_grad()
def mask(model: nn.Module, couplings: Sequence[Coupling], removed: Removed) -> None:
    """Sets to zero what gives the channels that go and what reads them, in place: without norms over channels, the
    network then computes what it computes without those channels."""
    modules = dict(model.named_modules())
    for (name, _), (side, gone) in removed_channels(couplings, removed).items():
        module = modules[name]
        size = side_size(module, side)
        for tensor, axis, groups in tensors_of(module, side):
            value = module._parameters.get(tensor)
            if value is not None:
                value.index_fill_(axis, (gone % (size // groups)).unique().to(value.device), 0.0)


def _tensor(module: nn.Module, name: str) -> Tensor | None:
    own = module._parameters.get(name)
    return module._buffers.get(name) if own is None else own.detach()


def _sizes(module: nn.Module, side: Side, count: int) -> dict[str, Any]:
    """The sizes of a module whose side has ``count`` channels left."""
    if isinstance(module, nn.modules.conv._ConvNd):
        if is_depthwise(module):
            return dict.fromkeys(("in_channels", "out_channels", "groups"), count)
        return {f"{side.side}_channels": count}
    if isinstance(module, nn.Linear):
        return {f"{side.side}_features": count}
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return {"normalized_shape": [count]}
    if isinstance(module, nn.GroupNorm):
        return {"num_channels": count}
    if isinstance(module, nn.PReLU):
        return {"num_parameters": count}
    if isinstance(module, nn.Embedding):
        return {"embedding_dim": count}
    if side.side in ("in", "out"):
        return {"num_features": count}
    shape = list(module.get_parameter(side.side).shape)
    shape[side.axis] = count
    return {side.side: shape}


def _fewer_heads(attention: nn.Module, gone: int) -> dict[str, int]:
    """The numbers of an attention module that has lost so many heads."""
    names = [name for name in HEADS if type(attention.__dict__.get(name)) is int]
    heads = int(attention.__dict__[names[0]])
    wide = {name: attention.__dict__[name] for name in OF_HEADS if type(attention.__dict__.get(name)) is int}
    return {
        **dict.fromkeys(names, heads - gone),
        **{name: width // heads * (heads - gone) for name, width in wide.items() if width % heads == 0},
    }
