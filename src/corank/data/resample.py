"""One rate of samples to another: the band-limited signal through the samples, read at other times."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["resampled"]

ZEROS = 16  # crossings of the sinc to each side
ROLLOFF = 0.95  # of the lower of both rates' bands; the rest is for the filter to fall in
PART = 1 << 20  # numbers at once


def resampled(samples: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    """``y(t) = sum_n x_n h(t - n)``, ``h`` a sinc under a Hann window, cut off under the lower of the two rates.

    Args:
        samples: (n,), float32.
        rate, wanted: samples a second, of what is given and of what is returned.

    Returns:
        float32, ``round(n wanted / rate)`` samples, at least one.
    """
    if rate == wanted:
        return samples
    count = max(1, round(len(samples) * wanted / rate))
    cutoff = ROLLOFF * min(1.0, wanted / rate)  # of the input's own band
    reach = int(np.ceil(ZEROS / cutoff))
    padded = np.pad(samples, reach + 1)
    offsets = np.arange(-reach, reach + 2)
    found = np.empty(count, np.float32)
    step = max(1, PART // len(offsets))
    for start in range(0, count, step):
        times = np.arange(start, min(count, start + step), dtype=np.float64) * (rate / wanted)
        whole = np.floor(times).astype(np.int64)
        distance = (times - whole)[:, None] - offsets
        window = np.cos(np.clip(distance / (reach + 1), -1, 1) * (np.pi / 2)) ** 2
        taps = cutoff * np.sinc(cutoff * distance) * window
        near = padded[np.clip(whole[:, None] + offsets + reach + 1, 0, len(padded) - 1)]
        found[start : start + len(times)] = (near * taps).sum(axis=1)
    return found
