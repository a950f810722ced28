"""Power-of-two quantization (arXiv 2203.05025), 2 to 7 bits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corank.codecs.scaled import ScaledLevels, check_fields
from corank.errors import ConfigError

__all__ = ["PowerOfTwo", "mirrored"]


@dataclass(frozen=True)
class PowerOfTwo(ScaledLevels):
    """Zero and signed powers of two: ``value = scale * {0, +-1, +-1/2, ..., +-2^-(2^(bits-1) - 2)}``.

    A multiplication is a shift. ``2 ** bits - 1`` values: one code is unused. Further bits add values near zero only.

    Args:
        bits: 2 to 7.
        group: columns that share a scale; 0 for one scale a row (output channel), -1 for one a weight.
        nearest: "value", or "log": a weight goes to the power of two that is closest on a logarithmic scale, which
            switches at ``sqrt(2) 2^k`` and not at ``1.5 2^k``.
        power_of_two_scale: scales are powers of two (6 bits each), so that values are.
    """

    bits: int = 4
    group: int = 0
    nearest: str = "value"
    power_of_two_scale: bool = False

    def __post_init__(self) -> None:
        check_fields(self, range(2, 8), self.group, self.power_of_two_scale)
        if self.nearest not in ("value", "log"):
            raise ConfigError(f"nearest={self.nearest!r}: PowerOfTwo rounds to the nearest 'value' or 'log'")

    def levels(self) -> Tensor:
        return torch.cat([-self._powers().flip(0), torch.zeros(1, dtype=torch.float32), self._powers()])

    def thresholds(self) -> Tensor | None:
        if self.nearest == "value":
            return None
        powers = self._powers()  # next to zero, halfway: no logarithm reaches it
        return mirrored(torch.cat([powers[:1] / 2, powers[:-1] * 2**0.5]))

    def _powers(self) -> Tensor:
        """The positive levels, ascending."""
        return torch.exp2(torch.arange(2.0 - 2 ** (self.bits - 1), 1.0, dtype=torch.float32))


def mirrored(positive: Tensor) -> Tensor:
    """Ascending positive numbers, and before them their negatives."""
    return torch.cat([-positive.flip(0), positive])
