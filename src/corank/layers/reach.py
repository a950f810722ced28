"""Layers that only some samples reach, such as experts that tokens are routed to: looked for in further samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from corank.layers.held import HeldWeight
from corank.layers.observe import Observation, fed
from corank.watching import evaluating, watched

__all__ = ["reach"]


def reach(
    model: nn.Module,
    seen: Observation,
    kinds: tuple[type[nn.Module], ...],
    further: Iterable[Callable[[nn.Module], Any]],
) -> None:
    """Adds to what was seen the layers that were not called before, each after the one that ran before it, and notes
    those that were given rows; ends as soon as none is left. Layers that are never called, but stand in a list beside
    others of their kind that are, count as called, too: they are experts of which no sample had need.

    Args:
        model: as it was observed; left as it was.
        seen: is changed.
        kinds: of the layers that matter.
        further: each calls the model on other samples.
    """
    read = {id(part) for one in model.modules() if isinstance(one, nn.MultiheadAttention) for part in one.modules()}
    read |= {id(part) for part in model.modules() if isinstance(part, HeldWeight) and id(part) not in seen.calls}
    layers = {id(part): part for part in model.modules() if isinstance(part, kinds) and id(part) not in read}
    left = layers.keys() - seen.fed
    order = list(seen.calls)

    def note(layer: int) -> Callable[..., None]:
        def enter(_module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            called[layer] = called.get(layer, 0) + 1
            if fed(args, named):
                seen.fed.add(layer)

        return enter

    called: dict[int, int] = {}
    with evaluating(model), watched(layers, note, before=True), torch.no_grad():
        for run in further if left else ():
            called.clear()
            run(model)
            before = -1
            for layer in called:
                if layer not in seen.calls:
                    order.insert(before + 1, layer)
                    seen.calls[layer] = called[layer]
                before = order.index(layer)
            if not left - seen.fed:
                break
    for layer, brother in _brothers(model, kinds, seen):
        order.insert(order.index(brother) + 1, layer)
        seen.calls[layer] = 0
    counts = dict(seen.calls)
    seen.calls.clear()
    seen.calls.update((layer, counts[layer]) for layer in order)


def _brothers(model: nn.Module, kinds: tuple[type[nn.Module], ...], seen: Observation) -> Iterator[tuple[int, int]]:
    """Layers that were never called, each with one that was and has the same place in another entry of a list."""
    for holder in model.modules():
        entries = list(holder.children()) if isinstance(holder, nn.ModuleList) else []
        called: dict[str, nn.Module] = {}
        for entry in entries:
            called |= {name: part for name, part in entry.named_modules() if id(part) in seen.calls}
        for entry in entries:
            for name, part in entry.named_modules():
                brother = called.get(name)
                if brother is None or id(part) in seen.calls or not isinstance(part, kinds):
                    continue
                if type(part) is type(brother) and _shape(part) == _shape(brother):
                    yield id(part), id(brother)


def _shape(layer: nn.Module) -> torch.Size | None:
    weight = layer._parameters.get("weight")
    return None if weight is None else weight.shape
