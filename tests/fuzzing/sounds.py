"""WAV files made for tests."""

from __future__ import annotations

import io
import math
import wave

import numpy as np
from numpy.typing import NDArray


def tone(hertz: float, seconds: float = 0.3, rate: int = 8000, gain: float = 0.5) -> NDArray[np.float64]:
    """A sine, (n,) from -gain to gain."""
    return gain * np.sin(2 * math.pi * hertz * np.arange(round(seconds * rate)) / rate)


def wav(samples: NDArray[np.float64], rate: int = 8000, width: int = 2) -> bytes:
    """PCM of ``width`` bytes a sample; (n,) or (n, channels) from -1 to 1."""
    whole = np.clip(np.rint(samples * 2 ** (8 * width - 1)), -(2 ** (8 * width - 1)), 2 ** (8 * width - 1) - 1)
    raw = whole.astype(np.int64).reshape(-1)
    if width == 1:
        raw = raw + 128
    stream = io.BytesIO()
    with wave.open(stream, "wb") as sound:
        sound.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        sound.setsampwidth(width)
        sound.setframerate(rate)
        sound.writeframes(raw.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width].tobytes())
    return stream.getvalue()
