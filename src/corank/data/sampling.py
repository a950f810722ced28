"""What a network hears: samples a second, and how many of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from corank.errors import ConfigError

__all__ = ["HIGHEST_RATE", "LOWEST_RATE", "Sampling"]

LOWEST_RATE, HIGHEST_RATE = 1000, 768_000
LONGEST = 1 << 26  # samples


@dataclass(frozen=True)
class Sampling:
    """How a recording becomes a network's input: one channel, float32 from -1 to 1, all of one length.

    Recordings of another rate are resampled, shorter ones end in zeros, of longer ones the middle is taken.

    Args:
        rate: samples a second (Hz), 1000 to 768,000.
        seconds: that the network hears.

    Raises:
        ConfigError: a value outside of what is said here, or more than 2^26 samples.
    """

    rate: int = 16_000
    seconds: float = 1.0

    def __post_init__(self) -> None:
        if type(self.rate) is not int or not LOWEST_RATE <= self.rate <= HIGHEST_RATE:
            raise ConfigError(
                f"rate is {self.rate!r}: whole samples a second, {LOWEST_RATE} to {HIGHEST_RATE}, e.g. Sampling(16000)"
            )
        if type(self.seconds) not in (int, float) or not 0 < self.seconds < math.inf or self.samples < 1:
            raise ConfigError(f"seconds is {self.seconds!r}; give a positive number, e.g. Sampling({self.rate}, 1.0)")
        if self.samples > LONGEST:
            raise ConfigError(f"{self.seconds:g} s at {self.rate} Hz are over {LONGEST} samples; give fewer seconds")

    @property
    def samples(self) -> int:
        """Samples of one input."""
        return round(self.rate * self.seconds)
