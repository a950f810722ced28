"""The residual block (He et al., arXiv 1512.03385) of the networks that ship with the package."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ResidualBlock"]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a projection where the shape changes.

    Args:
        inputs, outputs: channels.
        stride: of the first convolution and the projection.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, H', W')``.

        Args:
            x: what the block reads.
            mask: what is returned is multiplied by it, and so is what the second convolution reads: padding is zero
                before each, as beyond the picture's edge. Broadcast against ``(N, outputs, H', W')``.
        """
        y = torch.relu(self.bn1(self.conv1(x)))
        if mask is None:
            return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))
        return torch.relu(self.bn2(self.conv2(y * mask)) + self.shortcut(x)) * mask
