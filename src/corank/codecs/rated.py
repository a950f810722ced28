"""Codecs of equal steps whose width is found for a rate: bits a weight after entropy coding."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

import torch
from torch import Tensor

from corank.codecs.scaled import ScaledLevels
from corank.errors import ConfigError

__all__ = ["RatedLevels", "check_rate"]


class RatedLevels(ScaledLevels):
    """``value = step * k`` with whole ``k``; the step is one that keeps the codes, entropy-coded, to a rate.

    Attributes:
        rate: bits a weight after coding; 0 for what goes with the width of a code.
    """

    rate: float

    @classmethod
    @abstractmethod
    def of(cls, rate: float) -> Self:
        """The codec for that rate, with codes wide enough for weights far out."""

    @abstractmethod
    def at_rate(self, rate: float) -> Self:
        """The same for another rate, all else but the width of codes as it is."""

    @property
    @abstractmethod
    def most(self) -> float:
        """The entropy that the codes may have."""

    @property
    @abstractmethod
    def largest_rate(self) -> float:
        """That codes of its width are wide enough for."""

    def for_bits(self, bits: int) -> Self:
        return self.at_rate(float(bits))

    def levels(self) -> Tensor:
        most = 2 ** (self.bits - 1) - 1
        return torch.arange(-float(most), most + 1, dtype=torch.float32)


def check_rate(codec: RatedLevels, usual: str) -> None:
    """Raises ConfigError unless the codec's rate is one."""
    name, rate = type(codec).__name__, codec.rate
    if isinstance(rate, bool) or not isinstance(rate, (int, float)):
        raise ConfigError(f"rate={rate!r}: bits a weight, 0.1 to 8, e.g. {name}(bits={codec.bits}, rate=2.0)")
    if rate != 0 and not 0.1 <= rate <= 8:
        raise ConfigError(f"rate={rate!r}: 0.1 to 8 bits a weight, or 0 for {usual}")
