"""Images as arrays in memory: pixels, and tensors that are ready as they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corank.data.decode import stack
from corank.data.images import ImageSet
from corank.data.preprocessing import Preprocessing
from corank.errors import DataError

__all__ = ["PixelSource", "TensorSource", "class_labels", "from_pixels"]


@dataclass(frozen=True, eq=False)
class PixelSource:
    """Images as uint8 (N, H, W, 1 or 3)."""

    pixels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, indices: NDArray[np.int64], preprocessing: Preprocessing) -> Tensor:
        """The images at `indices`: float32 (N, C, H, W)."""
        images = [preprocessing(self.pixels[index]) for index in indices]
        return preprocessing.normalise(stack(images, [f"image {index}" for index in indices]))


@dataclass(frozen=True, eq=False)
class TensorSource:
    """Inputs that the network reads as they are: float32 (N, C, H, W)."""

    values: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, indices: NDArray[np.int64], preprocessing: Preprocessing) -> Tensor:
        """The inputs at `indices`: float32 (N, C, H, W); `preprocessing` has nothing left to do."""
        return self.values[torch.from_numpy(indices)]


def from_pixels(
    pixels: NDArray[np.generic],
    labels: NDArray[np.int64] | None,
    preprocessing: Preprocessing | None,
    name: str,
) -> ImageSet:
    """Images from an array, uint8 (N, H, W, 1 or 3) or (N, H, W); `name` is what an error calls it."""
    images = pixels[..., None] if pixels.ndim == 3 else pixels
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or images.size == 0:
        raise DataError(
            f"{name} is {pixels.dtype} {pixels.shape}; it must hold images as uint8 (N, H, W, 3), "
            "(N, H, W, 1) or (N, H, W)"
        )
    source = PixelSource(images.view(np.uint8))
    return ImageSet(source, preprocessing or Preprocessing(channels=images.shape[3]), labels)


def class_labels(labels: NDArray[np.generic], count: int, name: str) -> NDArray[np.int64]:
    """Check labels, any integers (N,) or (N, 1), and return them as int64 (N,)."""
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.dtype.kind not in "iu" or flat.shape != (count,):
        raise DataError(f"{name} is {labels.dtype} {labels.shape}; it must hold one integer for each of {count} images")
    return flat.astype(np.int64)
