"""A network walked block by block: what each block is called with, and parts of a network that run by themselves.

A part has the names that its layers have in the network, so that patterns, plans and files name them alike.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

__all__ = ["STATES", "BlockPart", "Calls", "EndsPart", "PassedOn"]

STATES = "hidden_states"
_given: ContextVar[Tensor | None] = ContextVar("_given", default=None)


class PassedOn(nn.Module):
    """Stands in a block's place and gives on what it is called with; within an :class:`EndsPart` that runs, the states
    that it was given.

    Args:
        block: whose place it is.
        as_tuple: whether the block gives a tuple.

    Attributes:
        call: the last call's arguments by name, the states left out.
    """

    def __init__(self, block: nn.Module, as_tuple: bool) -> None:
        super().__init__()
        self._names = [name for name in inspect.signature(type(block).forward).parameters][1:]
        self._as_tuple, self._states, self.call = as_tuple, torch.zeros(0, dtype=torch.float32), dict[str, Any]()

    def taken(self) -> Tensor:
        """The states of the last call, which are held no longer."""
        states, self._states = self._states, torch.zeros(0, dtype=torch.float32)
        return states

    def forward(self, *args: Any, **named: Any) -> Any:
        call = {**dict(zip(self._names, args, strict=False)), **named}
        states, given = call.pop(self._names[0]), _given.get()
        if given is None:
            self._states, self.call = states, call
        found = states if given is None else given
        return (found,) if self._as_tuple else found


class Calls:
    """What a block is called with beside the states, batch by batch: tensors, which batches hold, and the rest."""

    def __init__(self, calls: Sequence[Mapping[str, Any]]) -> None:
        self._calls = calls
        self.constants = {name: value for name, value in calls[0].items() if not _tensors(value)}

    def batch(self, number: int, states: Tensor) -> dict[str, Any]:
        """The batch of that number for a :class:`BlockPart`."""
        return {STATES: states, **{name: value for name, value in self._calls[number].items() if _tensors(value)}}


class BlockPart(nn.Module):
    """One block, under the name that it has in the network.

    Args:
        name: with dots.
        block: called with ``hidden_states`` ``(N, T, D)`` and what batches hold beside; gives the same shape.
        constants: arguments that are no tensors.
    """

    def __init__(self, name: str, block: nn.Module, constants: Mapping[str, Any]) -> None:
        super().__init__()
        self._name, self._constants = name, dict(constants)
        place: nn.Module = self
        *path, last = name.split(".")
        for step in path:
            inner = nn.Module()
            place.add_module(step, inner)
            place = inner
        place.add_module(last, block)

    @property
    def block(self) -> nn.Module:
        """The block itself."""
        return self.get_submodule(self._name)

    def forward(self, **batch: Any) -> Tensor:
        found = self.block(**self._constants, **batch)
        return found[0] if isinstance(found, tuple) else found


class EndsPart(nn.Module):
    """A network without its blocks, in whose place :class:`PassedOn` stands: what is before them and what is behind.

    Args:
        model: of which this is another face: they share their parts, so that one replaced here is replaced there.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.__dict__["_whole"] = model
        self.__dict__["_modules"] = model._modules  # its layers, under their names
        self.eval()

    @property
    def whole(self) -> nn.Module:
        """The network itself."""
        return self.__dict__["_whole"]

    def forward(self, hidden_states: Tensor, **batch: Any) -> Any:
        """The network's output where its blocks give ``hidden_states`` ``(N, T, D)``."""
        token = _given.set(hidden_states)
        try:
            return self.whole(**batch, use_cache=False)
        finally:
            _given.reset(token)


def _tensors(value: Any) -> bool:
    leaves = tree_leaves(value)
    return bool(leaves) and all(isinstance(leaf, Tensor) for leaf in leaves)
