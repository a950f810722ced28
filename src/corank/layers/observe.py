"""What one forward pass shows: which layers ran, in which order, and who read what they gave. Nothing is traced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import corank.watching as watching
from corank.layers.kinds import base_class

__all__ = ["Observation", "fed", "module_named", "names_of", "observe"]

_OUTSIDE = -1


@dataclass
class Observation:
    """What was seen of each module, by ``id``.

    Attributes:
        calls: how often each ran, in order of first run.
        fed: those that were called with a tensor that is not empty.
        norms: layer to the one module that alone read its output.
        alike: layers with a ``forward()`` of their own that gave exactly what their supported kind gives.
        outputs: what the model returned.
    """

    calls: dict[int, int] = field(default_factory=dict)
    fed: set[int] = field(default_factory=set)
    norms: dict[int, int] = field(default_factory=dict)
    alike: set[int] = field(default_factory=set)
    outputs: Any = None


class _Readers(TorchDispatchMode):
    """Notes which module runs each operation that reads a watched tensor's storage."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[int] = [_OUTSIDE]
        self.watched: dict[int, tuple[int, Tensor]] = {}
        self.readers: dict[int, set[int]] = {}

    def watch(self, layer: int, output: Tensor) -> None:
        self.watched[output.untyped_storage().data_ptr()] = (layer, output)  # held, so that it is not reused
        self.readers.setdefault(layer, set())

    def note(self, value: object, reader: int) -> None:
        if isinstance(value, Tensor) and value.layout == torch.strided and value.device.type != "meta":
            found = self.watched.get(value.untyped_storage().data_ptr())
            if found is not None:
                self.readers[found[0]].add(reader)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would load its compiler, which takes seconds, to keep it out of the method below

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs or {})):
            self.note(value, self.stack[-1])
        return func(*args, **(kwargs or {}))


def observe(model: nn.Module, run: Callable[[nn.Module], Any], watched: tuple[type[nn.Module], ...]) -> Observation:
    """Runs ``run(model)`` once in evaluation mode and says what happened.

    Args:
        model: any eager module; it is left as it was.
        run: calls the model on a small batch and returns its output.
        watched: layer types whose outputs' readers are wanted.
    """
    seen, mode = Observation(), _Readers()
    modules = dict(enumerate(model.modules()))

    def enter(module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
        mode.stack.append(id(module))
        seen.calls[id(module)] = seen.calls.get(id(module), 0) + 1
        if fed(inputs, named):
            seen.fed.add(id(module))

    def leave(module: nn.Module, inputs: tuple[object, ...], _named: object, output: object) -> None:
        seen.alike.update(_alike(module, inputs, output))
        mode.stack.pop()
        if isinstance(module, watched) and isinstance(output, Tensor):
            mode.watch(id(module), output)

    with (
        watching.evaluating(model),
        watching.watched(modules, lambda _: enter, before=True),
        watching.watched(modules, lambda _: leave),
    ):
        model.eval()
        with torch.no_grad(), mode:
            seen.outputs = run(model)
    for value in tree_leaves(seen.outputs):
        mode.note(value, _OUTSIDE)
    for layer, readers in mode.readers.items():
        if len(readers) == 1 and _OUTSIDE not in readers:
            seen.norms[layer] = next(iter(readers))
    return seen


def fed(args: tuple[object, ...], named: Mapping[str, object]) -> bool:
    """Whether some tensor that a module is called with is not empty."""
    return any(isinstance(value, Tensor) and value.numel() > 0 for value in (*args, *named.values()))


def _alike(module: nn.Module, inputs: tuple[object, ...], output: object) -> set[int]:
    """The module's id, if its own ``forward()`` gave what its supported kind's gives; else nothing."""
    kind = base_class(module)
    if kind is None or type(module).forward is kind.forward or not isinstance(output, Tensor):
        return set()
    try:
        expected = kind.forward(module, *inputs)
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return set()
    same = isinstance(expected, Tensor) and expected.shape == output.shape and torch.equal(expected, output)
    return {id(module)} if same else set()


def module_named(model: nn.Module, name: str) -> nn.Module:
    """The module of that name: of torch's own look-up, attributes are in the way that read a weight from a layer.

    Raises:
        KeyError: where there is none.
    """
    return dict(model.named_modules(remove_duplicate=False))[name]


def names_of(model: nn.Module) -> dict[int, list[str]]:
    """Module ``id`` to all names it goes by: shared modules have several."""
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(name)
    return names
