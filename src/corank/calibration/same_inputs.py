"""Layers that read one and the same tensor, as queries, keys and values do: its moments are summed up once."""

from __future__ import annotations

import weakref
from collections.abc import Mapping

from torch import Tensor, nn

from corank.processes import number_of_processes

__all__ = ["Readers", "TensorMark", "may_share"]


def may_share(layer: nn.Module) -> bool:
    """Whether a layer's moments may be another's: those of a convolution depend on its kernel, too, and processes that
    each see some of the batches would have to agree."""
    return isinstance(layer, nn.Linear) and number_of_processes() == 1


class TensorMark:
    """Tells a tensor again without keeping it."""

    def __init__(self, tensor: Tensor) -> None:
        self._seen = weakref.ref(tensor)
        self._version = None if tensor.is_inference() else tensor._version

    def is_of(self, tensor: Tensor) -> bool:
        """Whether that is the very tensor, not written to since."""
        return self._seen() is tensor and self._version is not None and tensor._version == self._version


class Readers:
    """Who reads whose inputs in one pass over the samples.

    Args:
        targets: name to layer.
    """

    def __init__(self, targets: Mapping[str, nn.Module]) -> None:
        self._may = {name: may_share(layer) for name, layer in targets.items()}
        self._last: tuple[str, TensorMark] | None = None
        self._first: dict[str, str] = {}
        self._calls: dict[str, int] = {}
        self._apart: set[str] = set()

    def first(self, name: str, inputs: Tensor) -> str:
        """The layer whose moments count for ``name``, which was called with ``inputs``: the first that read them, or
        itself. It stays the one of the first call."""
        if self._may[name]:
            if self._last is None or not self._last[1].is_of(inputs):
                self._last = (name, TensorMark(inputs))
            now = self._last[0]
        else:
            now = name
        first = self._first.setdefault(name, now)
        self._calls[name] = self._calls.get(name, 0) + 1
        if first not in (name, now):
            self._apart.add(name)
        return first

    def shared(self) -> dict[str, str]:
        """Name to the first reader of its inputs, of all that always read what another one read before."""
        found = {name: first for name, first in self._first.items() if first != name and name not in self._apart}
        return {name: first for name, first in found.items() if self._calls[name] == self._calls[first]}

    def parted(self) -> list[str]:
        """Those that did so at first and not later: nobody has summed up what they read."""
        shared = self.shared()
        return [name for name, first in self._first.items() if first != name and name not in shared]
