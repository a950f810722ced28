"""Random flips and shifts of image batches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["flip_and_shift"]


def flip_and_shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image ``(N, C, H, W)`` mirrored with probability one half and shifted by up to an eighth of its side."""
    if images.dim() != 4:
        return images
    count, _, height, width = images.shape
    reach = max(1, min(height, width) // 8)
    flip = torch.rand(count, generator=generator, dtype=torch.float32).to(images.device) < 0.5
    flipped = torch.where(flip[:, None, None, None], images.flip(3), images)
    padded = F.pad(flipped, (reach, reach, reach, reach), mode="constant")
    moves = torch.randint(0, 2 * reach + 1, (count, 2), generator=generator).to(images.device)
    rows = moves[:, 0, None] + torch.arange(height, device=images.device)
    columns = moves[:, 1, None] + torch.arange(width, device=images.device)
    sample = torch.arange(count, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
