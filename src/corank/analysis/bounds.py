"""An upper bound on how much a network stretches its input, from one pass that is watched.

Each tensor of the pass has a bound on how far it moves when the input moves by 1 (in the Euclidean norm, of one
sample). A layer multiplies it by its own bound, a branch that is added adds its own, branches that are joined add their
squares. Operations that are no Lipschitz functions of all inputs, or of which nothing is known here, have none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from corank.analysis.operations import Unbounded, factor_of
from corank.layers import CodedLayer
from corank.watching import evaluating, input_of, watched

__all__ = ["NetworkBound", "network_bound"]


@dataclass
class NetworkBound:
    """How far outputs move at most when the input moves by 1.

    Attributes:
        value: of the network's output; infinite where some operation on the way has no bound.
        before: of each layer's input, by name.
        reasons: by module, why there is no bound behind it.
        notes: what holds with a reservation, one sentence each.
    """

    value: float = math.inf
    before: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def network_bound(
    model: nn.Module, run: Callable[[nn.Module], Any], inputs: Tensor, layers: Mapping[str, float]
) -> NetworkBound:
    """The bound of a model in evaluation mode, along the operations that one pass runs.

    Args:
        model: any eager module; it is not changed.
        run: calls it on ``inputs``, one sample.
        inputs: floating.
        layers: bound of the norm of each linear layer by name; what such a layer does inside is not looked at.
    """
    found = NetworkBound()
    mode = _Watch(found)
    modules = dict(model.named_modules())

    def enter(name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
            mode.running.append(name)
            if name in layers:
                before = mode.bound_of(input_of(args, named))
                found.before[name] = max(found.before.get(name, 0.0), before)
                mode.inside += 1

        return note

    def leave(name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: tuple[Any, ...], named: Mapping[str, Any], output: Any) -> None:
            if name in layers:
                mode.inside -= 1
                if isinstance(module, CodedLayer) and module.inputs is not None:
                    mode.rounds(name)
                for leaf in tree_leaves(output):
                    mode.set(leaf, layers[name] * mode.bound_of(input_of(args, named)))
            mode.running.pop()

        return note

    with evaluating(model), watched(modules, enter, before=True), watched(modules, leave), torch.no_grad(), mode:
        mode.set(inputs, 1.0)
        output = run(model)
    found.value = math.sqrt(sum(mode.bound_of(leaf) ** 2 for leaf in tree_leaves(output) if isinstance(leaf, Tensor)))
    return found


class _Watch(TorchDispatchMode):
    """Carries bounds from the operands of each operation to what it gives."""

    def __init__(self, found: NetworkBound) -> None:
        super().__init__()
        self._found = found
        self.running: list[str] = []
        self.inside = 0
        self._bounds: dict[int, float] = {}
        self._held: list[Tensor] = []  # so that no storage is used again

    def set(self, value: object, bound: float) -> None:
        """Gives a tensor a bound; what it shares its storage with has the same."""
        if isinstance(value, Tensor) and value.numel():
            self._held.append(value)
            self._bounds[_place(value)] = bound

    def bound_of(self, value: object) -> float:
        """0 for what does not hang on the input."""
        return self._bounds.get(_place(value), 0.0) if isinstance(value, Tensor) and value.numel() else 0.0

    def rounds(self, name: str) -> None:
        """Says of a step function what it is."""
        self._say(f"{name}: it rounds its inputs, which is no Lipschitz function: |Q(x) - Q(y)| <= |x - y| + step")

    @property
    def _where(self) -> str:
        """The innermost module that is running."""
        return (self.running[-1] if self.running else "") or "(model)"

    def _say(self, note: str) -> None:
        if note not in self._found.notes:
            self._found.notes.append(note)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would load its compiler, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operands = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        before = [self.bound_of(one) for one in operands]
        given = func(*args, **kwargs)
        if not self.inside and any(before):
            self._carry(func, (args, kwargs), operands, given)
        return given

    def _carry(self, func: Any, called: Any, operands: list[Tensor], given: Any) -> None:
        try:
            bound = factor_of(func, called, self.bound_of, given)
        except Unbounded as reason:
            bound = math.inf
            self._found.reasons.setdefault(self._where, str(reason))
        if func._schema.name == "aten::round":
            self.rounds(self._where)
        if func._schema.name in ("aten::native_layer_norm", "aten::native_group_norm"):
            self._say(f"{self._where}: a norm by the sample's own spread; its bound is that of the flattest input")
        for leaf in tree_leaves(given):
            if isinstance(leaf, Tensor) and leaf.numel():
                own = _place(leaf)
                part = any(own == _place(one) for one in operands if one.numel()) and not _is_whole(leaf)
                # What is written into a part of a storage leaves the rest of it as it was.
                self.set(leaf, math.hypot(self._bounds.get(own, 0.0), bound) if part and _writes(func) else bound)


def _place(value: Any) -> int:
    return value.untyped_storage().data_ptr()


def _is_whole(value: Tensor) -> bool:
    return value.numel() * value.element_size() == value.untyped_storage().nbytes()


def _writes(func: Any) -> bool:
    return any(one.alias_info is not None and one.alias_info.is_write for one in func._schema.arguments)
