"""Pixels as a file of numpy, which the package webdataset decodes too: uint8 (H, W, C), nothing else."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from corank.data.preprocessing import LARGEST_SIDE
from corank.errors import DataError

__all__ = ["pixel_file", "pixels_of"]

# The one header that is read: a parser of Python's literals would take ten times as long as the pixels.
HEADER = re.compile(
    rb"\{'descr': '\|u1', 'fortran_order': False, 'shape': \((\d{1,5}), (\d{1,5}), ([13])\), \} *\n\Z", re.ASCII
)
MAGIC = b"\x93NUMPY\x01\x00"


def pixel_file(image: NDArray[np.uint8]) -> bytes:
    """The file of an image, uint8 (H, W, 1 or 3)."""
    stream = io.BytesIO()
    npy.write_array(stream, np.ascontiguousarray(image), version=(1, 0))
    return stream.getvalue()


def pixels_of(data: bytes, name: Callable[[], str]) -> NDArray[np.uint8]:
    """The image in a file, uint8 (H, W, 1 or 3), which shares its memory.

    Args:
        data: the whole file.
        name: what an error calls it.

    Raises:
        DataError: anything else than what `pixel_file` writes.
    """
    start = 10 + int.from_bytes(data[8:10], "little")
    match = HEADER.fullmatch(data[10:start]) if data.startswith(MAGIC) else None
    shape = tuple(map(int, match.groups())) if match else (0, 0, 0)
    if max(shape) > LARGEST_SIDE or math.prod(shape) != len(data) - start or len(data) == start:
        raise DataError(f"{name()} is no array of pixels, uint8 (H, W, 1 or 3); pack the data again with --decoded")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)
