"""Image files from strangers, as pixels: bounded in size, each error naming its file."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from corank.data.preprocessing import Preprocessing
from corank.errors import DataError

__all__ = ["EXTENSIONS", "LARGEST_FILE_BYTES", "decode", "decode_batch", "decode_files", "format_of", "stack"]

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
SUFFIXES = {"JPEG": "jpg", "PNG": "png", "BMP": "bmp", "GIF": "gif", "WEBP": "webp", "TIFF": "tif", "PPM": "ppm"}
LARGEST_FILE_BYTES = 256_000_000
WORKERS = 4


def decode(data: bytes, name: str, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decode one image file's bytes to uint8 (H, W, C).

    Args:
        data: the whole file.
        name: what an error calls it.
        preprocessing: applied to the decoded image.

    Raises:
        DataError: not a sound image, or one with more pixels than Pillow's limit for a decompression bomb.
    """
    with _opened(data, name) as image:
        return preprocessing(image)


def format_of(data: bytes, name: str) -> str:
    """The suffix that says what format an image file is of, such as "jpg"; its pixels are not decoded.

    Raises:
        DataError: no image, or one with more pixels than Pillow's limit for a decompression bomb.
    """
    with _opened(data, name) as image:
        return SUFFIXES.get(image.format or "", "jpg")  # several pictures in one JPEG have a name of their own


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise DataError(f"{image.width} x {image.height} pixels, over the limit of {limit} pixels")
            yield image
    except Exception as error:  # Pillow's decoders raise a dozen different types on hostile bytes
        reason = f"{error}" or type(error).__name__
        raise DataError(f"image {name} cannot be read: {reason}; repair or remove the file") from error


def decode_files(
    read: Callable[[int], bytes],
    names: Sequence[str],
    indices: NDArray[np.int64],
    preprocessing: Preprocessing,
) -> list[NDArray[np.uint8]]:
    """Read and decode the images at `indices`, on a few threads: each uint8 (H, W, C)."""

    def some(part: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        return [decode(read(int(index)), names[int(index)], preprocessing) for index in part]

    workers = min(WORKERS, os.cpu_count() or 1, len(indices))
    if workers <= 1:
        return some(indices)
    with ThreadPoolExecutor(workers) as pool:
        return list(chain.from_iterable(pool.map(some, np.array_split(indices, workers))))


def decode_batch(
    read: Callable[[int], bytes],
    names: Sequence[str],
    indices: NDArray[np.int64],
    preprocessing: Preprocessing,
) -> Tensor:
    """Read, decode and stack the images at `indices`, on a few threads: float32 (N, C, H, W)."""
    images = decode_files(read, names, indices, preprocessing)
    return preprocessing.normalise(stack(images, [names[int(index)] for index in indices]))


def stack(images: Sequence[NDArray[np.uint8]], names: Sequence[str]) -> Tensor:
    """Stack images (H, W, C) to uint8 (N, H, W, C).

    Raises:
        DataError: they are not all of one size.
    """
    for image, name in zip(images, names, strict=True):
        if image.shape != images[0].shape:
            raise DataError(different_sizes(images[0].shape[:2], names[0], image.shape[:2], name))
    return torch.from_numpy(np.stack(images))


def different_sizes(first: Sequence[int], first_name: str, other: Sequence[int], other_name: str) -> str:
    """The message for images of more than one size."""
    return (
        f"the images have different sizes: {first_name} is {first[1]} x {first[0]} pixels, {other_name} is "
        f"{other[1]} x {other[0]}; pass --image-size (in Python: Preprocessing(image_size=224))"
    )
