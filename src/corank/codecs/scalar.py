"""The codebook of codecs whose values are ``scale * (level - offset)``: sorted levels, found by bisection."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from corank.codecs.base import Codebook, midway
from corank.codecs.places import picked, places

__all__ = ["EXPONENT_BITS", "LOWEST_EXPONENT", "ScalarCodebook"]

EXPONENT_BITS, LOWEST_EXPONENT = 6, -24  # of scales that are powers of two; the range is that of fp16


@dataclass(frozen=True)
class ScalarCodebook(Codebook):
    """``value = scale * (level[code] - offset)``; every scalar codec shares this.

    Attributes:
        levels: ``(L,)`` float32, ascending; where there are fewer values the last one is repeated.
        scale: ``(R, G)`` float32 holding values that fp16 can hold, since that is how scales are stored.
        offset: ``(R, G)`` float32, multiples of ``offset_step``, in units of a level.
        group_size: columns that share a scale.
        offset_bits: bits of one stored offset; 0 where every offset is zero by construction.
        offset_step: what one stored unit of an offset stands for.
        scale_bits: bits of one stored scale: 16, :data:`EXPONENT_BITS` where every scale is a power of two, or 0
            where every scale is one.
        level_bits: bits of one stored level; 0 where the codec knows the levels.
        thresholds: ``(L - 1,)`` float32, ascending, in units of a level: a weight on or above the k-th goes to level
            k + 1. None: midway, so that each weight goes to the closest level. Nothing of them is stored.
    """

    levels: Tensor
    scale: Tensor
    offset: Tensor
    group_size: int
    offset_bits: int = 0
    offset_step: float = 1.0
    scale_bits: int = 16
    level_bits: int = 0
    thresholds: Tensor | None = None

    @property
    def code_bits(self) -> int:
        return max(1, (len(self.levels) - 1).bit_length())

    @property
    def size(self) -> int:
        return len(self.levels)

    @property
    def size_bits(self) -> int:
        return self.scale.numel() * (self.scale_bits + self.offset_bits) + len(self.levels) * self.level_bits

    def nearest(self, weight: Tensor) -> Tensor:
        # Weights are brought to the levels and not levels to the weights: one sorted list then serves all rows.
        return places(self.in_levels(weight), self.middles).to(torch.uint8)

    def rounded(self, weight: Tensor) -> Tensor:
        # The same numbers as by way of the codes, in half as many operations: walks over columns call it most.
        level, columns = picked(self.levels, places(self.in_levels(weight), self.middles)), weight.shape[1]
        level = level if self._has_no_offset else level - self.spread(self.offset, columns)
        return self.spread(self.scale, columns) * level

    def neighbours(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        # From the left, and so the level itself where a weight is one; nearest goes from the right, up on a threshold.
        above = torch.bucketize(self.in_levels(weight).contiguous(), self.levels)
        # Repeats of the last level are the same value under other codes.
        top = int((self.levels < self.levels[-1]).sum())
        below = (above - 1).clamp(0, top)
        return below.to(torch.uint8), above.clamp(0, top).to(torch.uint8)

    def values(self, codes: Tensor) -> Tensor:
        columns = codes.shape[1]
        level = picked(self.levels, codes.clamp(max=len(self.levels) - 1))  # a file may hold any code
        return self.spread(self.scale, columns) * (level - self.spread(self.offset, columns))

    def columns(self, index: Tensor) -> ScalarCodebook:
        if self.scale.shape[1] == 1:
            return self
        # Columns may come in any order, which cuts through the groups: each then has its own scale.
        group = index.div(self.group_size, rounding_mode="floor")
        return replace(self, scale=self.scale[:, group], offset=self.offset[:, group], group_size=1)

    def tensors(self) -> dict[str, Tensor]:
        """What is stored, as it is stored; what every file of the codec would say alike is left out."""
        found = {}
        # Rounded, because log2 of an exact power of two may miss the whole number by a last digit.
        if self.scale_bits == EXPONENT_BITS:
            found["exponent"] = (self.scale.log2().round() - LOWEST_EXPONENT).to(torch.uint8)
        elif self.scale_bits:
            found["scale"] = self.scale.to(torch.float16)
        if self.offset_bits:
            found["offset"] = (self.offset / self.offset_step).to(torch.uint8)
        if self.level_bits:
            found["levels"] = self.levels.to(torch.float16)
        return found

    @property
    def _has_no_offset(self) -> bool:
        """By construction, so that nothing has to be looked at."""
        return not self.offset_bits

    @cached_property
    def middles(self) -> Tensor:
        """``(L - 1,)`` in units of a level: what a weight must reach to go to the next one."""
        return midway(self.levels) if self.thresholds is None else self.thresholds

    def in_levels(self, weight: Tensor) -> Tensor:
        """The weight ``(R, C)`` in units of its levels."""
        columns = weight.shape[1]
        found = weight / self.spread(self.scale, columns)
        return found if self._has_no_offset else found + self.spread(self.offset, columns)

    def spread(self, values: Tensor, columns: int) -> Tensor:
        """Values ``(R, G)`` of groups as those of their columns, in a shape that broadcasts to ``(R, C)``."""
        # One group, or one a column: broadcasting does it without a copy. The last group may be cut short.
        if values.shape[1] in (1, columns):
            return values
        return values.repeat_interleave(self.group_size, dim=1)[:, :columns]
