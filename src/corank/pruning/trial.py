"""Couplings tried on the network itself: without half of their units it must compute what it does with them at zero."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from corank.errors import CorankError
from corank.pruning.coupling import NORMS_ACROSS, Coupling
from corank.pruning.graph import Couplings, read_outputs
from corank.pruning.removal import mask, remove
from corank.watching import watched

__all__ = ["tried"]

_APART = 1e-6  # relative difference of outputs in float64: the order of sums


def tried(model: nn.Module, couplings: Couplings, batch: Any, run: Callable[[nn.Module, Any], Any]) -> Couplings:
    """The couplings that hold; the others are left, with the reason.

    Every second unit of all of them goes at once; where that does not do, halves of them are tried, and so on.

    Args:
        model: in evaluation mode; it is not changed.
        couplings: as they were found.
        batch: of a few samples.
        run: calls a model on a batch.
    """
    wide = tree_map(
        lambda leaf: leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, batch
    )
    try:
        exact = copy.deepcopy(model).double()
        run(exact, wide)
    except (CorankError, TypeError, RuntimeError):  # a network that names float32 itself, a device without float64
        exact, wide = copy.deepcopy(model), batch
    check = _Trial(exact, lambda one: run(one, wide))
    sound, failed = _sound(check, couplings.found)
    given = {side.module for one in sound for side in one.gives()}
    left = {
        one.name: f"{one.units} of its channels: {reason}" if one.name in given else reason for one, reason in failed
    }
    return Couplings(tuple(sound), {**couplings.left, **left})


def _sound(check: _Trial, couplings: Sequence[Coupling]) -> tuple[list[Coupling], list[tuple[Coupling, str]]]:
    """Those that hold together, and why the others do not."""
    why = check(couplings)
    if why is None:
        return list(couplings), []
    if len(couplings) == 1:
        return [], [(couplings[0], why)]
    half = len(couplings) // 2
    first, failed = _sound(check, couplings[:half])
    second, others = _sound(check, couplings[half:])
    why = check([*first, *second]) if failed or others else why
    if why is None:
        return [*first, *second], [*failed, *others]
    return first, [*failed, *others, *((one, f"it holds, but not beside others: {why}") for one in second)]


class _Trial:
    """Why couplings do not hold together; None where they do."""

    def __init__(self, model: nn.Module, run: Callable[[nn.Module], Any]) -> None:
        self._model, self._run = model, run

    @torch.no_grad()
    def __call__(self, couplings: Sequence[Coupling]) -> str | None:
        if not couplings:
            return None
        removed = {place: torch.arange(one.units, device="cpu") % 2 == 1 for place, one in enumerate(couplings)}
        narrow, zero = copy.deepcopy(self._model), copy.deepcopy(self._model)
        try:
            remove(narrow, couplings, removed)
            mask(zero, couplings, removed)
            return _difference(self._without_norms(narrow), self._without_norms(zero))
        except (CorankError, RuntimeError, ValueError, TypeError, IndexError) as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            return f"the network does not run without its channels: {said[0][:200]}"

    def _without_norms(self, model: nn.Module) -> Any:
        """What it gives where norms over channels, which see what is missing, give what they are given."""
        across = {name: one for name, one in model.named_modules() if isinstance(one, NORMS_ACROSS)}
        with watched(across, lambda _: lambda _module, args, _named, _output: args[0] if args else None):
            return self._run(model)


def _difference(given: Any, expected: Any) -> str | None:
    for one, other in zip(read_outputs(given), read_outputs(expected), strict=True):
        if one.shape != other.shape:
            return "its channels are among the network's outputs"
        apart = float((one - other).norm() / other.norm().clamp(min=1e-30))
        if not apart <= (_APART if one.dtype == torch.float64 else 1e-3):
            return f"the network computes something else without its channels than with them at zero, by {apart:.2g}"
    return None
