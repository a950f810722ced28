"""Images that a function in the caller's own Python file returns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from corank.data.arrays import TensorSource, class_labels, from_pixels
from corank.data.images import ImageSet
from corank.data.preprocessing import Preprocessing
from corank.data.python_function import call_function
from corank.errors import DataError

__all__ = ["load_function"]


def load_function(path: Path, function: str, preprocessing: Preprocessing | None = None) -> ImageSet:
    """Images that a function in a Python file returns.

    Args:
        path: the file.
        function: takes no argument and returns an `ImageSet`, or images, or (images, labels or None): images
            as uint8 (N, H, W, C), or as a finite float32 tensor (N, C, H, W) that the network reads as it is.
        preprocessing: for uint8 images; None keeps their size and channels.

    Raises:
        DataError: no such file or function, an error in it, or something else returned.
    """
    returned = call_function(path, function, DataError)
    name = f"{path}:{function}"
    if isinstance(returned, ImageSet):
        return returned
    images, labels = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
    if isinstance(images, np.ndarray):
        pixels = from_pixels(images, None, preprocessing, f"the array of {name}")
        source, preprocessing = pixels.source, pixels.preprocessing
    elif isinstance(images, Tensor):
        source = TensorSource(_check_inputs(images, name))
    else:
        raise DataError(
            f"{name} returned {type(images).__name__}; return (images, labels) with uint8 images "
            "(N, H, W, C), or a float32 tensor (N, C, H, W), or an ImageSet"
        )
    found = None if labels is None else class_labels(np.asarray(labels), len(source), f"the labels of {name}")
    return ImageSet(source, preprocessing or Preprocessing(), found)


def _check_inputs(values: Tensor, name: str) -> Tensor:
    if values.dtype != torch.float32 or values.ndim < 2 or values.numel() == 0:
        raise DataError(f"{name} returned a tensor {values.dtype} {tuple(values.shape)}; return float32 (N, C, H, W)")
    if not bool(torch.isfinite(values).all()):
        raise DataError(f"{name} returned a tensor with NaN or infinite values")
    return values.detach().cpu()
