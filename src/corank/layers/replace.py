"""One module in the place of another, wherever it stands."""

from __future__ import annotations

from torch import nn

from corank.layers.held import ELSEWHERE

__all__ = ["replace_module"]


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts ``new`` wherever ``old`` stands, under every name it goes by, and where others read a weight of it."""
    for parent in list(model.modules()):
        for places in (parent._modules, parent.__dict__.get(ELSEWHERE, {})):
            for name, child in list(places.items()):
                if child is old:
                    places[name] = new
