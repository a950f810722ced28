"""scikit-learn's digits: 1797 real scanned digits of 8 x 8 pixels, which need no download."""

from __future__ import annotations

import numpy as np

from corank.data.arrays import from_pixels
from corank.data.images import ImageSet
from corank.data.preprocessing import Preprocessing
from corank.errors import ConfigError, DataError

__all__ = ["load_digits"]

SPLITS = ("all", "train", "test")


def load_digits(split: str = "all", preprocessing: Preprocessing | None = None) -> ImageSet:
    """The handwritten digits that come with scikit-learn, grey levels 0..16 scaled to 0..255.

    Args:
        split: "all" (1797 images), "test" (every fourth image: 3, 7, 11, ...) or "train" (the others, on
            which the shipped network was trained); the order is always that of scikit-learn.
        preprocessing: None keeps 8 x 8 pixels in one grey channel.

    Raises:
        DataError: no such split.
        ConfigError: scikit-learn is not installed.
    """
    if split not in SPLITS:
        raise DataError(f"there is no split digits:{split}; write digits, digits:train or digits:test")
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ConfigError("digits needs scikit-learn: pip install 'corank[demo]'") from error
    values, labels = datasets.load_digits(return_X_y=True)
    pixels = np.rint(np.asarray(values) * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    classes = np.asarray(labels, dtype=np.int64)
    images = from_pixels(pixels, classes, preprocessing, "digits")
    images = ImageSet(images.source, images.preprocessing, classes, tuple(map(str, range(10))))
    if split == "all":
        return images
    is_test = np.arange(len(images)) % 4 == 3
    return images.select(np.flatnonzero(is_test == (split == "test")))
