"""Models where they are to run."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from corank.layers.meta import check_values

__all__ = ["placed"]

M = TypeVar("M", bound=nn.Module)


def placed(model: M, device: torch.device) -> M:
    """The model on ``device``: itself where any of it is there (or none anywhere), else a copy that was moved.

    So a model that is spread over several devices by other means stays as it is.

    Raises:
        ModelError: for a model on the meta device, of which nothing can be moved.
    """
    where = torch.empty(0, dtype=torch.float32, device=device).device  # "cuda" says which one
    found = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    if not found or where in found:
        return model
    check_values(model)
    return copy.deepcopy(model).to(where)
