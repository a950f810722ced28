"""Samples that a function in the caller's own Python file returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corank.data.arrays import TensorSource, class_labels, from_pixels
from corank.data.batches import BatchSet
from corank.data.images import ImageSet
from corank.data.preprocessing import Preprocessing
from corank.data.python_function import call_function
from corank.data.tokens import Tokenization, TokenSet, cut_tokens
from corank.errors import DataError

__all__ = ["load_function"]

FORMS = (
    "(images, labels) with uint8 images (N, H, W, C), a float32 tensor (N, C, H, W), token ids as whole numbers "
    "(N, T), a mapping of tensors by the names of the model's arguments, a list of batches, or an ImageSet"
)


def load_function(
    path: Path, function: str, preprocessing: Preprocessing | None = None, reading: Tokenization | None = None
) -> ImageSet | TokenSet | BatchSet:
    """Samples that a function in a Python file returns.

    Args:
        path: the file.
        function: takes no argument and returns an `ImageSet`, `TokenSet` or `BatchSet`; or samples, or (samples, labels
            or None). Samples are images as uint8 (N, H, W, C), a finite float32 tensor (N, ...) that the network reads
            as it is, token ids as whole numbers (N, T), a mapping of tensors (N, ...) by the names of the model's
            arguments, or a list of batches, each a tensor, such a mapping, or (inputs, labels).
        preprocessing: for uint8 images; None keeps their size and channels.
        reading: of token ids; given for a language model, it reads any array as such.

    Raises:
        DataError: no such file or function, an error in it, or something else returned.
    """
    returned, name = call_function(path, function, DataError), f"{path}:{function}"
    if isinstance(returned, (ImageSet, TokenSet, BatchSet)):
        return returned
    if reading is not None and isinstance(returned, (np.ndarray, Tensor)):
        return cut_tokens(_array(returned), name, reading)
    samples, labels = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
    if labels is None and _are_tokens(samples):
        return cut_tokens(_array(samples), name, reading or Tokenization())
    if isinstance(samples, (np.ndarray, Tensor)):
        return _images(samples, labels, name, preprocessing)
    if isinstance(returned, (str, bytes)) or returned is None:
        raise DataError(f"{name} returned {type(returned).__name__}; return {FORMS}")
    pair = [returned] if isinstance(returned, tuple) and not isinstance(samples, (tuple, list)) else returned
    return BatchSet.of(pair, name)


def _images(samples: Any, labels: Any, name: str, preprocessing: Preprocessing | None) -> ImageSet:
    if isinstance(samples, np.ndarray):
        pixels = from_pixels(samples, None, preprocessing, f"the array of {name}")
        source, preprocessing = pixels.source, pixels.preprocessing
    else:
        source = TensorSource(_check_inputs(samples, name))
    found = None if labels is None else class_labels(np.asarray(labels), len(source), f"the labels of {name}")
    return ImageSet(source, preprocessing or Preprocessing(), found)


def _are_tokens(samples: Any) -> bool:
    """Whether an array is whole numbers (N, T)."""
    return isinstance(samples, (np.ndarray, Tensor)) and samples.ndim == 2 and _array(samples).dtype.kind in "iu"


def _array(values: Any) -> Any:
    """As numpy's; what numpy has no type for is no whole number either."""
    if isinstance(values, Tensor) and values.dtype == torch.bfloat16:
        values = values.float()
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def _check_inputs(values: Tensor, name: str) -> Tensor:
    if values.dtype != torch.float32 or values.ndim < 2 or values.numel() == 0:
        raise DataError(f"{name} returned a tensor {values.dtype} {tuple(values.shape)}; return float32 (N, C, H, W)")
    if not bool(torch.isfinite(values).all()):
        raise DataError(f"{name} returned a tensor with NaN or infinite values")
    return values.detach().cpu()
