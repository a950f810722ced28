"""How the pixels of a set of images became what the network reads."""

from __future__ import annotations

from typing import Any

from corank.data.arrays import TensorSource
from corank.data.images import ImageSet
from corank.data.recordings import RecordingSource

__all__ = ["pixel_scale"]


def pixel_scale(data: Any) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation of each channel, what pixels from 0 to 1 were normalised by; None where nothing says
    it: of tensors, of inputs that are read as they are, of recordings and of tokens."""
    if not isinstance(data, ImageSet) or isinstance(data.source, (TensorSource, RecordingSource)):
        return None
    own = data.preprocessing
    return own.mean or (0.0,) * own.channels, own.std or (1.0,) * own.channels
