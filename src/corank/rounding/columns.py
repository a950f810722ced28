"""What rounders share that go column by column and spread each column's error over those still to come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from corank.errors import ConfigError
from corank.rounding.base import Rounder
from corank.statistics import Gram

__all__ = ["ColumnRounder"]


@dataclass(frozen=True)
class ColumnRounder(Rounder):
    """Rounds with GPTQ's error feedback.

    Args:
        damping: added to the diagonal of the Gram matrix, as a part of its mean; more, with a note, where the matrix
            cannot be inverted in float32 all the same.
        block: columns updated together; changes the speed, not the result.
        sweeps: walks over the columns afterwards, each taking its best codes while all others stay, until one moves
            nothing; 0 for none.
    """

    needs = (Gram,)
    walks_columns: ClassVar[bool] = True

    damping: float = 0.01
    block: int = 64
    sweeps: int = 0

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not self.damping > 0 or self.block < 1:
            raise ConfigError(f"{name}(damping={self.damping!r}, block={self.block!r}): both are positive")
        if type(self.sweeps) is not int or self.sweeps < 0:
            raise ConfigError(f"{name}(sweeps={self.sweeps!r}): a whole number, 0 for one walk")

    def comparison_stand_in(self) -> Rounder:
        """The same without sweeps."""
        return replace(self, sweeps=0)
