"""Where a model is, and where it is to be worked on."""

from __future__ import annotations

import torch
from torch import nn

from corank.errors import ConfigError

__all__ = ["chosen_device", "device_of"]


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter or, without one, of its first buffer; the CPU for a model without."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def chosen_device(device: str | torch.device, otherwise: torch.device) -> torch.device:
    """The device asked for; of "auto", CUDA where there is any, else ``otherwise``.

    Raises:
        ConfigError: it cannot be used here.
    """
    if device == "auto":
        return torch.device("cuda") if torch.cuda.is_available() else otherwise
    try:
        where = torch.device(device)
        torch.zeros(1, dtype=torch.float32, device=where)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={str(device)!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return where
