"""Images in an .npz file, which NumPy writes."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from corank.data.arrays import class_labels, from_pixels
from corank.data.images import ImageSet
from corank.data.preprocessing import Preprocessing
from corank.errors import DataError

__all__ = ["array_names", "load_npz", "read_array"]

LABELS_OF = {
    "x": "y",
    "images": "labels",
    "x_test": "y_test",
    "test_images": "test_labels",
    "x_train": "y_train",
    "train_images": "train_labels",
    "data": "labels",
    "arr_0": "arr_1",
}
LARGEST_ARRAY_BYTES = 16_000_000_000
SMALL_ARRAY_BYTES, MOST_COMPRESSED = 64_000_000, 200  # a larger array, compressed further, is no data


def load_npz(
    path: Path,
    preprocessing: Preprocessing | None = None,
    *,
    image_key: str | None = None,
    label_key: str | None = None,
    labelled: bool = False,
) -> ImageSet:
    """Images of an .npz file.

    Args:
        path: a file of uint8 images (N, H, W, 3), (N, H, W, 1) or (N, H, W), and integer labels (N,).
        preprocessing: None keeps each image's size and channels.
        image_key: the images' name; by default the first there is of x, images, x_test, test_images,
            x_train, train_images, data, arr_0.
        label_key: the labels' name; by default the partner of the image key (y_test of x_test).
        labelled: the labels are needed: where they do not fit, it is an error.

    Raises:
        DataError: no such file or key, a file that is not sound, arrays of another shape or dtype.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            known = array_names(archive)
            image_key = image_key or next((key for key in LABELS_OF if key in known), known[0] if known else "x")
            pixels = read_array(archive, image_key, known, path)
            wanted = label_key is not None or labelled
            partner = label_key or LABELS_OF.get(image_key, "y")
            found = read_array(archive, partner, known, path) if wanted or partner in known else None
    except DataError:
        raise
    except Exception as error:  # damaged archives and headers end in any of a dozen types
        raise DataError(f"{path} is not a sound .npz file: {error}") from error
    images = from_pixels(pixels, None, preprocessing, f"{image_key} of {path}")
    if found is None or not (wanted or found.dtype.kind in "iu"):
        return images
    labels = class_labels(found, len(images), f"{partner} of {path}")
    return ImageSet(images.source, images.preprocessing, labels)


def array_names(archive: zipfile.ZipFile) -> list[str]:
    """The names of the arrays in an open .npz file."""
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def read_array(archive: zipfile.ZipFile, key: str, known: list[str], path: Path | str) -> NDArray[np.generic]:
    """One array, its header checked against its size before anything is allocated; never a pickle.

    Raises:
        DataError: no such array, or one that is not what it says it is.
    """
    if key not in known:
        raise DataError(f"{path} has no array {key!r}; it has {', '.join(known) or 'none'}: give a key by name")
    entry = archive.getinfo(f"{key}.npy")
    with archive.open(entry) as stream:
        version = npy.read_magic(stream)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = header(stream)
        if dtype.hasobject:
            raise DataError(f"{key} of {path} holds Python objects; store it as numbers")
        size_bytes = math.prod(shape) * dtype.itemsize
        if size_bytes > LARGEST_ARRAY_BYTES or size_bytes != entry.file_size - stream.tell():
            raise DataError(f"{key} of {path} says it is {dtype} {shape}, which its size does not bear out")
        if size_bytes > max(SMALL_ARRAY_BYTES, MOST_COMPRESSED * entry.compress_size):
            raise DataError(
                f"{key} of {path} is {size_bytes / 1e6:.0f} MB in {entry.compress_size / 1e6:.1f} MB of file; arrays "
                f"compressed more than {MOST_COMPRESSED}-fold are not read: store it with numpy.savez"
            )
    with archive.open(entry) as stream:
        return npy.read_array(stream, allow_pickle=False)
