"""Where a network has room for changed structure: one pass shows which calls of ``relu`` and which layers there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from corank.errors import ConfigError, ModelError
from corank.layers.find_attention import ATTENTION, find_attention
from corank.layers.folding import is_foldable
from corank.layers.observe import names_of, observe
from corank.layers.rprelu import RELUS
from corank.layers.shortcut import NORMS, takes_a_shortcut
from corank.layers.structure import Structure, read_structure
from corank.matrix import SUPPORTED
from corank.watching import evaluating, input_of, watched

__all__ = ["FOUND", "find_structure"]

FOUND: tuple[str, ...] = (*ATTENTION, "rprelu", "shortcut")
"""Kinds of structure that are put wherever they fit; see :func:`find_structure`."""

_IMAGES = (2, 4, 5)  # dimensions of inputs whose channels are axis 1 for certain


def find_structure(
    model: nn.Module, run: Callable[[nn.Module], Any], kinds: Sequence[str], bits: int | None = None
) -> Structure:
    """The list for :func:`~corank.layers.structure.apply_structure` that puts the kinds wherever they fit.

    "rprelu": every call of ``relu`` on images or vectors. "shortcut": every layer but the first and the last whose
    inputs nothing else reads (where something does, as in a residual block, they have a way past the layer already)
    and whose shape allows it, round its batch norm where one alone reads the layer. "query-key" and "products": every
    attention, as :mod:`corank.layers.find_attention` says.

    Args:
        model: is not changed.
        run: calls it on a small batch.
        kinds: names of :data:`FOUND`.
        bits: that attention rounds what it multiplies to; None leaves that in float.

    Raises:
        ConfigError: for an unknown kind. ModelError: for a module that calls ``relu`` now more often, now less, or
            attention that cannot be changed.
    """
    found: list[dict[str, Any]] = []
    for kind in kinds:
        if kind not in FOUND:
            raise ConfigError(f"structure={kind!r}: of {', '.join(FOUND)}")
        if kind in ATTENTION:
            found += find_attention(model, run, kind, bits)
        else:
            found += _relus(model, run) if kind == "rprelu" else _shortcuts(model, run)
    return read_structure(found)


class _Run:
    """One run of a module, and the channels of the calls of ``relu`` that are its own."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.channels = module, list[int]()


class _Relus(TorchFunctionMode):
    """Notes each call of ``relu``: its channels, and the runs of modules that it is in, the outermost first."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[_Run] = []
        self.calls: list[tuple[int, tuple[_Run, ...]]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in RELUS:
            inputs = args[0] if args else kwargs["input"]
            self.calls.append((inputs.shape[1] if inputs.dim() in _IMAGES else 0, tuple(self.running)))
        return func(*args, **kwargs)


def _relus(model: nn.Module, run: Callable[[nn.Module], Any]) -> list[dict[str, Any]]:
    mode, times = _Relus(), Counter[int]()

    def enter(module: nn.Module, *_: object) -> None:
        times[id(module)] += 1
        mode.running.append(_Run(module))

    def leave(*_: object) -> None:
        mode.running.pop()

    modules = dict(enumerate(model.modules()))
    hooks = (watched(modules, lambda _: enter, before=True), watched(modules, lambda _: leave))
    with evaluating(model), hooks[0], hooks[1], torch.no_grad(), mode:
        run(model)
    runs = dict[int, _Run]()
    for channels, around in mode.calls:
        able = [one for one in around if _may_own(one.module, times[id(one.module)])]
        if able:
            able[-1].channels.append(channels)
            runs[id(able[-1])] = able[-1]
    owned, names = dict[int, list[int]](), names_of(model)
    for one in runs.values():
        known = owned.setdefault(id(one.module), one.channels)
        if len(known) != len(one.channels):
            raise ModelError(f"{names[id(one.module)][0]!r} does not call relu as often each time it runs")
        if known != one.channels:  # named all the same: a module around it must not count its calls
            owned[id(one.module)] = [0] * len(known)
    if not any(any(channels) for channels in owned.values()):
        return []
    return [{"kind": "rprelu", "module": names[one][0], "channels": channels} for one, channels in owned.items()]


def _may_own(module: nn.Module, times: int) -> bool:
    """A ReLU that runs in several places is told apart by its caller; a Sequential must hold only what it runs."""
    return times == 1 if type(module) is nn.ReLU else not isinstance(module, (nn.ReLU, nn.Sequential))


class _Reads(TorchDispatchMode):
    """Notes which module runs each operation that reads a tensor's storage, of all tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[int] = []
        self.readers: dict[int, set[int]] = {}
        self.held: list[Tensor] = []

    def note(self, value: object) -> None:
        if isinstance(value, Tensor) and value.layout == torch.strided and value.device.type != "meta":
            self.held.append(value)  # so that its storage is not reused
            self.readers.setdefault(value.untyped_storage().data_ptr(), set()).add(self.stack[-1] if self.stack else 0)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would load its compiler, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for argument, value in zip(func._schema.arguments, args, strict=False):
            # Views and what changes a tensor in place pass it on; whoever reads the result is noted.
            if argument.alias_info is None:
                for leaf in tree_leaves(value):
                    self.note(leaf)
        for leaf in tree_leaves(kwargs):
            self.note(leaf)
        return func(*args, **kwargs)


def _shortcuts(model: nn.Module, run: Callable[[nn.Module], Any]) -> list[dict[str, Any]]:
    mode, inputs = _Reads(), dict[int, set[int]]()
    seen = observe(model, run, SUPPORTED)

    def enter(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        if isinstance(module, SUPPORTED):
            given = input_of(args, named)
            mode.held.append(given)
            inputs.setdefault(id(module), set()).add(given.untyped_storage().data_ptr())
        mode.stack.append(id(module))

    def leave(*_: object) -> None:
        mode.stack.pop()

    modules = dict(enumerate(model.modules()))
    hooks = (watched(modules, lambda _: enter, before=True), watched(modules, lambda _: leave))
    with evaluating(model), hooks[0], hooks[1], torch.no_grad(), mode:
        run(model)
    known, names = {id(module): module for module in model.modules()}, names_of(model)
    ran = [layer for layer in seen.calls if layer in inputs]
    found = []
    for layer in ran[1:-1]:
        alone = all(mode.readers.get(place, set()) <= {layer} for place in inputs[layer])
        if not (alone and seen.calls[layer] == 1 and takes_a_shortcut(known[layer])):
            continue
        norm = known.get(seen.norms.get(layer, 0))
        if norm is not None and is_foldable(norm) and not isinstance(norm, NORMS):
            continue  # it activates as well: a shortcut would have to go into it
        round_it = names[id(norm)][0] if isinstance(norm, NORMS) else None
        found.append({"kind": "shortcut", "module": names[layer][0], "norm": round_it})
    return found
