"""Models where they are to run."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

__all__ = ["placed"]

M = TypeVar("M", bound=nn.Module)


def placed(model: M, device: torch.device) -> M:
    """The model on ``device``: itself where any of it is there (or none anywhere), else a copy that was moved.

    So a model that is spread over several devices by other means stays as it is.
    """
    where = torch.empty(0, dtype=torch.float32, device=device).device  # "cuda" says which one
    found = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    return model if not found or where in found else copy.deepcopy(model).to(where)
