"""The inputs that a Conv2d's weight sees, by torch's own unfolding of the whole batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def unfolded(layer: nn.Conv2d, inputs: Tensor) -> Tensor:
    """``(G, N * positions, C)``, every position."""
    padding = [int(side) for side in layer.padding]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(inputs, (padding[1], padding[1], padding[0], padding[0]), mode=mode)
    columns = F.unfold(padded, layer.kernel_size, dilation=layer.dilation, stride=layer.stride)
    groups = columns.chunk(layer.groups, dim=1)
    return torch.stack([group.transpose(1, 2).flatten(0, 1) for group in groups])


def second_moment(layer: nn.Conv2d, inputs: Tensor) -> Tensor:
    """``(G, C, C)`` float64: mean outer product of every patch."""
    rows = unfolded(layer, inputs).double()
    return rows.transpose(1, 2) @ rows / rows.shape[1]
