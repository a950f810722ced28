"""Less memory for a step: blocks forget what is in them, and compute it again for the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from corank.errors import ConfigError
from corank.notes import note
from corank.training.recipe import Recipe
from corank.training.state import TrainingState

__all__ = ["blocks_of", "check_recomputed", "recomputing"]

_PARTS = 4  # a block holds at most one of so many parts of the layers that train
_CACHES = ("past_key_value", "past_key_values")  # that a block fills as it runs, and would fill twice


def blocks_of(state: TrainingState) -> dict[str, nn.Module]:
    """The outermost modules that hold at most a quarter of the layers that train, by name; layers alone are none."""
    layers = {id(layer.module) for layer in state.layers.values()}
    largest = max(1, len(layers) // _PARTS)
    found: dict[str, nn.Module] = {}
    for name, module in state.model.named_modules():
        held = {id(inner) for inner in module.modules()} & layers
        inside = any(name.startswith(f"{outer}.") for outer in found)
        runs = not isinstance(module, (nn.ModuleList, nn.ModuleDict))
        if held and len(held) <= largest and id(module) not in layers and not inside and runs and name:
            found[name] = module
    return found


def check_recomputed(recipe: Recipe) -> None:
    """Raises ConfigError for a recipe with a penalty that needs gradients of gradients, which are not recomputed."""
    for penalty in recipe.penalties:
        if penalty.differentiates_twice():
            raise ConfigError(
                f"recompute=True computes no gradients of gradients, which {type(penalty).__name__} needs; parts=... "
                "takes less memory, too"
            )


@contextmanager
def recomputing(state: TrainingState) -> Iterator[None]:
    """Within, what the blocks of ``state.model`` compute is not held for the backward pass, which computes it again
    (arXiv 1604.06174). Nothing else changes: buffers, such as norms' statistics, move once a step, and draws are the
    same again.
    """
    blocks = blocks_of(state)
    if not blocks:
        note("recompute: the network has no blocks, so nothing is computed again")
    own = {name: module.__dict__.get("forward") for name, module in blocks.items()}
    try:
        for module in blocks.values():
            module.__dict__["forward"] = _forgetful(module.forward, _buffers(module, state))
        yield
    finally:
        for name, module in blocks.items():
            if own[name] is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = own[name]


def _buffers(block: nn.Module, state: TrainingState) -> list[Tensor]:
    """What a pass through the block may change in place."""
    inside = {id(module) for module in block.modules()}
    held = [layer.inputs for layer in state.layers.values() if id(layer.module) in inside and layer.inputs is not None]
    return [buffer for module in (block, *held) for buffer in module.buffers()]


def _forgetful(forward: Callable[..., Any], buffers: list[Tensor]) -> Callable[..., Any]:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _unchanged(buffers)

    def forgetful(*args: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **named)
        named = {name: None if name in _CACHES else value for name, value in named.items()}
        return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **named)

    return forgetful


@contextmanager
def _unchanged(buffers: list[Tensor]) -> Iterator[None]:
    """Afterwards the buffers hold what they did before."""
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, old in zip(buffers, before, strict=True):
            buffer.data.copy_(old)  # .data: autograd need not know, as no gradient asks for it
