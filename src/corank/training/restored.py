"""A training's state as tensors and a note, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from corank.training.state import TrainingState

__all__ = ["restored", "saved"]


def saved(
    state: TrainingState, average: Sequence[Tensor], history: list[dict[str, float]]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All that the steps so far have changed."""
    assert state.optimizer is not None
    found = {f"model:{name}": tensor for name, tensor in state.model.state_dict().items()}
    for name, layer in state.layers.items():
        if layer.inputs is not None:
            found.update({f"inputs:{name}:{own}": one for own, one in layer.inputs.state_dict().items()})
    numbers: dict[str, float] = {}
    for index, own in state.optimizer.state_dict()["state"].items():
        for kind, value in own.items():
            if isinstance(value, Tensor):
                found[f"optimizer:{index}:{kind}"] = value
            elif value is not None:
                numbers[f"{index}:{kind}"] = value
    found.update({f"average:{index}": tensor for index, tensor in enumerate(average)})
    found.update({f"kept:{name}": tensor for name, tensor in state.kept.items()})
    # Copies, as safetensors holds no two tensors of one storage; on the CPU, where there is room beside the training.
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in found.items()}, {
        "history": history,
        "numbers": numbers,
    }


def restored(
    found: tuple[dict[str, Tensor], dict[str, Any]] | None, state: TrainingState, average: Sequence[Tensor]
) -> list[dict[str, float]]:
    """Puts a saved state back; returns the history of the steps that led to it."""
    if found is None:
        return []
    tensors, note = found
    assert state.optimizer is not None

    def under(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}

    state.model.load_state_dict(under("model:"))
    for name, layer in state.layers.items():
        if layer.inputs is not None:
            layer.inputs.load_state_dict(under(f"inputs:{name}:"))
    whole = state.optimizer.state_dict()
    own: dict[int, dict[str, Any]] = {}
    for name, one in {**under("optimizer:"), **note["numbers"]}.items():
        index, kind = name.split(":", 1)
        own.setdefault(int(index), {})[kind] = one
    state.optimizer.load_state_dict({**whole, "state": own})
    with torch.no_grad():
        for index, one in under("average:").items():
            average[int(index)].copy_(one)
    state.kept.clear()
    state.kept.update({name: one.to(state.device) for name, one in under("kept:").items()})
    return list(note["history"])
