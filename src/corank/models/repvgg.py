"""RepVGG (Ding et al., arXiv 2101.03697): blocks of three branches that fuse into one 3x3 convolution."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from corank.errors import ModelError
from corank.layers import replace_module

__all__ = ["RepVgg", "RepVggBlock", "fuse_repvgg"]


class RepVggBlock(nn.Module):
    """A 3x3 branch, a 1x1 branch and, where the shape stays, an identity branch, each with a norm; then ReLU.

    Args:
        inputs, outputs: channels.
        stride: of both convolutions.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.wide = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.wide_norm = nn.BatchNorm2d(outputs)
        self.narrow = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.narrow_norm = nn.BatchNorm2d(outputs)
        self.identity_norm = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(N, inputs, H, W)`` to ``(N, outputs, H / stride, W / stride)``."""
        total = self.wide_norm(self.wide(images)) + self.narrow_norm(self.narrow(images))
        return torch.relu(total if self.identity_norm is None else total + self.identity_norm(images))

    def fused(self) -> nn.Sequential:
        """One 3x3 convolution with a bias, and the ReLU: what the block computes in evaluation mode (section 3.3)."""
        # Convolutions are linear, and so is a norm in evaluation mode: the branches' sum is one kernel and one bias.
        kernels = [_with_norm(self.wide.weight, self.wide_norm)]
        # A 1x1 kernel is a 3x3 one whose centre alone is not zero; with a padding of 1 both read the same pixel.
        kernels.append(_with_norm(functional.pad(self.narrow.weight, (1, 1, 1, 1)), self.narrow_norm))
        if self.identity_norm is not None:
            # The identity as a 1x1 convolution.
            same = torch.eye(self.wide.in_channels, dtype=torch.float32).to(self.wide.weight)[:, :, None, None]
            kernels.append(_with_norm(functional.pad(same, (1, 1, 1, 1)), self.identity_norm))
        layer = nn.Conv2d(self.wide.in_channels, self.wide.out_channels, 3, padding=1).to(self.wide.weight)
        layer.stride = self.wide.stride
        with torch.no_grad():
            layer.weight.copy_(torch.stack([weight for weight, _ in kernels]).sum(0))
            assert layer.bias is not None
            layer.bias.copy_(torch.stack([bias for _, bias in kernels]).sum(0))
        return nn.Sequential(layer, nn.ReLU()).train(self.training)


class RepVgg(nn.Module):
    """Images ``(N, 3, H, W)`` to logits, randomly initialised.

    Args:
        depths, widths: blocks and channels of each stage; A0 has depths 1, 2, 4, 14, 1 and widths 48, 48, 96, 192,
            1280. The first block of a stage halves height and width.
        classes: logits.
        small_images: the first two stages keep height and width, for images of some 32 pixels.
    """

    def __init__(
        self, depths: Sequence[int], widths: Sequence[int], classes: int = 1000, *, small_images: bool = False
    ) -> None:
        super().__init__()
        blocks, channels = [], 3
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            for number in range(depth):
                # Five halvings would leave one pixel of an image of 32.
                keeps = number > 0 or (small_images and stage < 2)
                blocks.append(RepVggBlock(channels, width, 1 if keeps else 2))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(images).mean(dim=(2, 3)))


def fuse_repvgg(model: nn.Module) -> nn.Module:
    """A copy of a trained network in which every :class:`RepVggBlock` is one convolution; the outputs are the same.

    For timm's RepVGG and kin, ``timm.utils.reparameterize_model`` does it.

    Raises:
        ModelError: for a network without such blocks.
    """
    # In training mode a norm depends on the batch, and cannot be a part of a kernel.
    found = copy.deepcopy(model).eval()
    blocks = [module for module in found.modules() if isinstance(module, RepVggBlock)]
    if not blocks:
        raise ModelError(f"{type(model).__name__} has no RepVggBlock; for timm's use timm.utils.reparameterize_model")
    for block in blocks:
        replace_module(found, block, block.fused())
    return found.requires_grad_(False)


def _with_norm(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a convolution followed by a norm in evaluation mode."""
    assert norm.running_mean is not None and norm.running_var is not None
    # gamma (y - mean) / sigma + beta = (gamma / sigma) y + (beta - gamma mean / sigma), one factor for each row.
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    return weight * factor[:, None, None, None], norm.bias - norm.running_mean * factor
