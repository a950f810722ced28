"""What int8 arithmetic may be asked for."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from corank.errors import ConfigError

__all__ = ["Int8", "sums_overflow"]

_VNNI = frozenset(("avx512_vnni", "avx_vnni", "avx_vnni_int8"))


@dataclass(frozen=True)
class Int8:
    """Settings of int8 arithmetic.

    Attributes:
        samples: to calibrate on, at most.
        float_share: of all multiplications, that may stay in float: those of the layers that int8 harms most.
        float_layers: names or patterns of layers that stay in float anyway.
        reduce_range: weights in 7 bits; None asks for that where this processor needs it, see :func:`sums_overflow`.
        seed: draws samples, and the labels that weigh each layer's error.
    """

    samples: int = 64
    float_share: float = 0.2
    float_layers: tuple[str, ...] = ()
    reduce_range: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if type(self.samples) is not int or self.samples < 1:
            raise ConfigError(f"Int8(samples={self.samples!r}): a whole number from 1 on; some dozens are enough")
        if not 0 <= self.float_share <= 1:
            raise ConfigError(f"Int8(float_share={self.float_share!r}): 0 for none, to 1")
        if isinstance(self.float_layers, str):
            raise ConfigError(f"Int8(float_layers={self.float_layers!r}): a tuple, e.g. ({self.float_layers!r},)")

    @property
    def seven_bits(self) -> bool:
        """Whether weights get 7 bits."""
        return sums_overflow() if self.reduce_range is None else self.reduce_range


def sums_overflow() -> bool:
    """Whether this processor adds products of uint8 and int8 in pairs of 16 bits, where they overflow.

    True for x86 without VNNI, and where that is not known: 7 bits are safe everywhere.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return _VNNI.isdisjoint(text.split())
