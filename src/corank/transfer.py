"""Tensors on their way to a device, without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["sent"]

_COPIES_AT_ONCE = {"cuda"}  # devices that have read ordinary memory before the call returns


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on ``device``, where the copy may still be under way: what is done there next comes after it.

    Copied as usual, a program waits at every batch until a GPU has done all it was given before. CUDA takes a copy of
    what lies in ordinary memory before the call returns, so that the source may change then; of other devices that is
    not known, and copies to them are waited for.
    """
    return tensor.to(device, non_blocking=torch.device(device).type in _COPIES_AT_ONCE and tensor.device.type == "cpu")
