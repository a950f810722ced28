"""Levels of your own, which the plan holds: those of a table, or some that many layers share."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from corank.codecs.scaled import ScaledLevels, check_fields
from corank.errors import ConfigError

__all__ = ["Levels"]


@dataclass(frozen=True)
class Levels(ScaledLevels):
    """``value = scale * values[code]``, the scale being that of least squared error.

    The values stand in the plan, once for all layers that have them, and no layer stores any.

    Args:
        bits: of a code; those that so many values need.
        values: 2 to 256 numbers, ascending, e.g. the sixteen of NF4.
        group: columns that share a scale; 0 for one scale a row (output channel), -1 for one a weight.
    """

    bits: int = 1
    values: tuple[float, ...] = (-1.0, 1.0)
    group: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        sound = 2 <= len(self.values) <= 256
        sound = sound and all(type(one) in (int, float) and abs(one) <= 65504 for one in self.values)
        if not sound or any(one >= other for one, other in itertools.pairwise(self.values)):
            raise ConfigError(f"values={str(self.values)[:60]}: 2 to 256 numbers within +-65504, each above the last")
        needed = max(1, (len(self.values) - 1).bit_length())
        if self.bits != needed:
            raise ConfigError(f"bits={self.bits!r}: {len(self.values)} values take {needed}")
        check_fields(self, range(1, 9), self.group)

    def levels(self) -> Tensor:
        return torch.tensor(self.values, dtype=torch.float32)
