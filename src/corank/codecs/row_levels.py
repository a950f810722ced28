"""A codebook of levels that each row has for itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corank.codecs.base import Codebook, midway

__all__ = ["RowLevels"]


@dataclass(frozen=True)
class RowLevels(Codebook):
    """``value = levels[row, code]``.

    Attributes:
        levels: ``(R, L)`` float32, ascending along a row, the last one repeated where there are fewer; values of fp16.
        thresholds: ``(R, L - 1)`` float32, ascending along a row: a weight on or above the k-th goes to level k + 1;
            None: midway. Nothing of them is stored.
    """

    levels: Tensor
    thresholds: Tensor | None = None

    @property
    def code_bits(self) -> int:
        return max(1, (self.size - 1).bit_length())

    @property
    def size(self) -> int:
        return self.levels.shape[1]

    @property
    def size_bits(self) -> int:
        return 16 * self.levels.numel()

    def nearest(self, weight: Tensor) -> Tensor:
        middles = midway(self.levels) if self.thresholds is None else self.thresholds
        # Right: a weight on a threshold goes above it.
        found = torch.searchsorted(middles.contiguous(), weight.float().contiguous(), right=True)
        return found.to(torch.uint8)

    def neighbours(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        # Left: a weight that is a level finds that level itself.
        above = torch.searchsorted(self.levels.contiguous(), weight.float().contiguous())
        # The last level's first place: its repeats are the same value under other codes, which no one should pick.
        top = (self.levels < self.levels[:, -1:]).sum(1, keepdim=True)
        below = (above - 1).clamp(min=0)
        return torch.minimum(below, top).to(torch.uint8), torch.minimum(above, top).to(torch.uint8)

    def values(self, codes: Tensor) -> Tensor:
        # A file may hold any code.
        return self.levels.gather(1, codes.long().clamp(max=self.size - 1))

    def columns(self, index: Tensor) -> RowLevels:
        # Levels belong to rows, so every column has the same.
        return self

    def tensors(self) -> dict[str, Tensor]:
        return {"levels": self.levels.to(torch.float16)}
