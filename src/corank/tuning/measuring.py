"""A configuration made, and scored."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

from torch import nn

from corank.calibration import run
from corank.devices import device_of
from corank.tuning.selection import Selection
from corank.tuning.space import Configuration
from corank.tuning.trial import Measurement

__all__ = ["Made", "Maker", "Measuring"]

_TIMED = 30


@dataclass(frozen=True)
class Made:
    """What a configuration makes.

    Attributes:
        file: its bytes, the same whenever it is made again.
        network: what computes as the file says.
    """

    file: bytes
    network: nn.Module


Maker = Callable[[Configuration, float], Made]
"""Called with a configuration and the share of the calibration samples to use."""


@dataclass(frozen=True)
class Measuring:
    """What a configuration's network scores on a selection, and the size of its file.

    Attributes:
        maker: makes it.
        selection: what it is scored on.
        latency: whether the time of one sample is measured, too: the median of 30 passes.
    """

    maker: Maker
    selection: Selection
    latency: bool = False

    def __call__(self, configuration: Configuration, share: float) -> Measurement:
        # Scoring costs little beside making; on fewer samples its noise would hide what a cheap look can see.
        return self.of(self.maker(configuration, share))

    def of(self, made: Made, share: float = 1.0) -> Measurement:
        """Of what is made already."""
        known = {"size_bytes": len(made.file), "sha256": hashlib.sha256(made.file).hexdigest()}
        found = replace(self.selection.measured(made.network, share), **known)
        return replace(found, latency_ms=self._latency(made.network)) if self.latency else found

    def _latency(self, network: nn.Module) -> float:
        batch, times = self.selection.samples.first(1), []
        for _ in range(_TIMED):
            started = time.perf_counter()
            run(network, batch, device_of(network))
            times.append(1000 * (time.perf_counter() - started))
        return median(times)
