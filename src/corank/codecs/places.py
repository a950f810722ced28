"""Which of a few ascending numbers each weight goes to, and back: what every rounding to levels does most."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["picked", "places"]

_SMALL = 1 << 10  # numbers up to which only the count of operations matters
_FEW = 32  # thresholds up to which comparing with each is faster than a search for every number
_WORTH = 512  # numbers for each threshold from which on it is
_CHUNK = 1 << 16  # numbers compared at once: they stay in the processor's cache


def places(numbers: Tensor, thresholds: Tensor) -> Tensor:
    """How many ``thresholds`` ``(K,)``, ascending, each number reaches: of a whole type, in the numbers' shape.

    A number on a threshold has reached it; one that is not a number has reached all or none.
    """
    many = numbers.numel() > _SMALL
    few = many and len(thresholds) <= _FEW and len(thresholds) * _WORTH <= numbers.numel()
    if not (few and numbers.device.type == "cpu"):
        return torch.bucketize(numbers.contiguous(), thresholds, right=True, out_int32=many)
    # A search takes one unforeseeable branch a step; comparisons take none and eight or more numbers at a time, where
    # what they give is of the numbers' own type.
    numbers = numbers.contiguous()
    found = torch.empty(numbers.shape, dtype=torch.int8)  # unlike uint8 made of floats many at a time
    for part, codes in zip(numbers.view(-1).split(_CHUNK), found.view(-1).split(_CHUNK), strict=True):
        count, reached = torch.zeros_like(part), torch.empty_like(part)
        for threshold in thresholds.unbind():
            count += torch.ge(part, threshold, out=reached)
        codes.copy_(count)
    return found.view(torch.uint8)


def picked(levels: Tensor, codes: Tensor) -> Tensor:
    """``levels[codes]``, of levels ``(L,)`` and codes of any shape and whole type."""
    if codes.numel() <= _SMALL:
        return levels[codes.long()]
    codes = codes if codes.dtype in (torch.int32, torch.int64) else codes.int()
    return levels.index_select(0, codes.reshape(-1)).view(codes.shape)  # a fourth of the time of levels[codes]
