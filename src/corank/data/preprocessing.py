"""From an image to what a network reads: size, channels, mean and standard deviation.

Shapes: N images, H rows and W columns of pixels, C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from corank.errors import ConfigError, DataError

__all__ = ["INTERPOLATIONS", "Preprocessing"]

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
LARGEST_SIDE = 16384
MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a network's input; plain numbers, so it can be stored as JSON.

    Args:
        image_size: side of the square the network sees, in pixels; None keeps each image's own size.
        mean: one value per channel, subtracted after the pixels are scaled to 0..1; None subtracts nothing.
        std: one positive value per channel to divide by; None divides by nothing.
        crop: the share of the shorter side that the centre crop keeps, in (0, 1]: the shorter side is
            first resized to round(image_size / crop).
        channels: 1 (grey) or 3 (red, green, blue).
        interpolation: one of `INTERPOLATIONS`, always antialiased as Pillow does it.

    Raises:
        ConfigError: a value outside of what is said here.
    """

    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop: float = 1.0
    channels: int = 3
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.image_size is not None and not 1 <= self.image_size <= LARGEST_SIDE:
            raise ConfigError(f"image_size is {self.image_size}; give 1 to {LARGEST_SIDE} pixels, or None")
        if not 0 < self.crop <= 1:
            raise ConfigError(f"crop is {self.crop}; give a share in (0, 1], such as 0.875")
        if self.channels not in MODES:
            raise ConfigError(f"channels is {self.channels}; give 1 (grey) or 3 (RGB)")
        if self.interpolation not in INTERPOLATIONS:
            raise ConfigError(f"interpolation is {self.interpolation!r}; give one of {', '.join(INTERPOLATIONS)}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and (len(values) != self.channels or not all(map(math.isfinite, values))):
                raise ConfigError(f"{name} is {values}; give {self.channels} finite numbers, one per channel, or None")
        if self.std is not None and min(self.std) <= 0:
            raise ConfigError(f"std is {self.std}; every value must be above 0")

    def __call__(self, image: Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize, crop and convert one image.

        Args:
            image: a PIL image, or a uint8 array (H, W, 1 or 3).

        Returns:
            uint8 (H, W, C), C being `channels`, H = W = `image_size` where that is given.

        Raises:
            DataError: an array of another shape or dtype, or pixels that are not 8 or 16 bit.
        """
        if isinstance(image, np.ndarray):
            _check_array(image)
            if self.image_size is None and image.shape[2] == self.channels:
                return image
            image = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        image = _to_mode(image, MODES[self.channels])
        if self.image_size is not None:
            image = self._resize_and_crop(image, self.image_size)
        pixels = np.array(image, dtype=np.uint8)
        return pixels[:, :, None] if pixels.ndim == 2 else pixels

    def normalise(self, batch: Tensor) -> Tensor:
        """Scale pixels to 0..1, subtract the mean, divide by the standard deviation.

        Args:
            batch: uint8 (N, H, W, C).

        Returns:
            float32 (N, C, H, W), contiguous.

        Raises:
            DataError: another dtype, or another number of channels.
        """
        if batch.dtype != torch.uint8 or batch.ndim != 4 or batch.shape[3] != self.channels:
            raise DataError(
                f"a batch of {batch.dtype} {tuple(batch.shape)} was given; it must be uint8 (N, H, W, {self.channels})"
            )
        values = batch.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 255
        if self.mean is not None:
            values -= torch.tensor(self.mean, dtype=torch.float32).view(-1, 1, 1)
        if self.std is not None:
            values /= torch.tensor(self.std, dtype=torch.float32).view(-1, 1, 1)
        return values

    def _resize_and_crop(self, image: Image.Image, size: int) -> Image.Image:
        short, (width, height) = round(size / self.crop), image.size
        # the longer side is truncated, not rounded, because that is what torchvision and timm do
        scaled = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
        if max(scaled) > LARGEST_SIDE:
            raise DataError(
                f"an image of {width} x {height} pixels would grow to {scaled[0]} x {scaled[1]}; "
                "it is too narrow to be resized by its shorter side"
            )
        if scaled != image.size:
            image = image.resize(scaled, Image.Resampling[self.interpolation.upper()])
        left, top = round((scaled[0] - size) / 2), round((scaled[1] - size) / 2)
        return image.crop((left, top, left + size, top + size))


def _check_array(image: NDArray[np.uint8]) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in MODES or image.size == 0:
        raise DataError(f"an image of {image.dtype} {image.shape} was given; it must be uint8 (H, W, 1) or (H, W, 3)")


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "F":
        raise DataError("an image of float pixels was given; store it with 8 or 16 bits per channel")
    if image.mode.startswith("I"):
        # Pillow clips 16-bit greys at 255 instead of scaling them
        image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
    return image if image.mode == mode else image.convert(mode)
