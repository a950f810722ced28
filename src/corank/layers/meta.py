"""Models on torch's meta device, whose tensors have shapes and no values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from corank.errors import ModelError

__all__ = ["check_values", "materialise", "meta_names"]


def meta_names(model: nn.Module) -> list[str]:
    """The names of the parameters and buffers that have no values."""
    return [name for name, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta]


def check_values(model: nn.Module) -> None:
    """Raises ModelError for a model with a parameter or buffer on the meta device."""
    names = meta_names(model)
    if names:
        raise ModelError(
            f"{names[0]!r} and {len(names) - 1} more tensors of this {type(model).__name__} are on the meta device, "
            "which keeps shapes and no values; give them values first: model.to_empty(device='cpu'), then "
            "model.load_state_dict(...), or build the model outside of torch.device('meta')"
        )


def materialise(model: nn.Module) -> None:
    """Gives room on the CPU to every parameter and persistent buffer on the meta device; their values are to be filled.

    A tensor that goes by several names stays one tensor.

    Raises:
        ModelError: for a buffer that no state dict holds: nobody could fill it.
    """
    persistent, made = set(model.state_dict()), dict[int, Tensor]()
    for prefix, module in model.named_modules():
        for name, buffer in module._buffers.items():
            full = f"{prefix}.{name}" if prefix else name
            if buffer is not None and buffer.is_meta and buffer.numel() and full not in persistent:
                raise ModelError(
                    f"its buffer {full!r} is on the meta device and not part of a state dict, so no file holds its "
                    "values; build the model outside of torch.device('meta')"
                )
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None and tensor.is_meta:
                    if id(tensor) not in made:
                        made[id(tensor)] = _room(tensor)
                    held[name] = made[id(tensor)]  # pyright: ignore[reportArgumentType]


def _room(tensor: Tensor) -> Tensor:
    room = torch.empty_like(tensor, device="cpu")
    return nn.Parameter(room, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else room
