from __future__ import annotations

import numpy as np
import pytest
import torch

from corank.data import Preprocessing
from corank.data.arrays import PixelSource, TensorSource, class_labels, from_pixels
from corank.errors import DataError


def test_grey_pixels_keep_one_channel_unless_told() -> None:
    pixels = np.full((2, 3, 4), 51, np.uint8)
    assert from_pixels(pixels, None, None, "p").tensor().shape == (2, 1, 3, 4)
    colour = from_pixels(pixels, None, Preprocessing(image_size=2), "p").tensor()
    assert colour.shape == (2, 3, 2, 2) and torch.allclose(colour, torch.tensor(0.2))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2, 3, 4, 3)),
        np.zeros((2, 3, 4, 2), np.uint8),
        np.zeros((3, 4), np.uint8),
        np.zeros((0, 3, 4), np.uint8),
    ],
)
def test_other_pixels_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"the box is .* uint8"):
        from_pixels(pixels, None, None, "the box")


def test_pixel_source_reads_the_asked_positions() -> None:
    source = PixelSource(np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1))
    batch = source.batch(np.array([3, 1]), Preprocessing(channels=1))
    assert (batch.flatten() * 255).round().tolist() == [3, 1]


def test_tensor_source_is_left_as_it_is() -> None:
    values = torch.randn(4, 2, 3)
    batch = TensorSource(values).batch(np.array([2, 0]), Preprocessing(image_size=224, mean=(1, 1, 1)))
    assert batch.equal(values[[2, 0]])


def test_labels_of_any_integer_and_columns_are_taken() -> None:
    labels = class_labels(np.array([[3], [1]], np.uint8), 2, "y")
    assert labels.dtype == np.int64 and labels.tolist() == [3, 1]


@pytest.mark.parametrize("labels", [np.array([0.0, 1.0]), np.array([1]), np.eye(2, dtype=np.int64)])
def test_other_labels_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(DataError, match="one integer for each of 2"):
        class_labels(labels, 2, "y")
