from __future__ import annotations

import numpy as np
import pytest
import torch

from corank.data import ImageSet, Preprocessing
from corank.data.arrays import PixelSource, TensorSource
from corank.errors import DataError


@pytest.fixture
def images() -> ImageSet:
    """Ten grey 2 x 2 images, image i being i everywhere with label i."""
    pixels = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    return ImageSet(PixelSource(pixels), Preprocessing(channels=1), np.arange(10))


def shown(images: ImageSet) -> list[int]:
    return (images.tensor()[:, 0, 0, 0] * 255).round().int().tolist()


def test_batches_are_in_order_with_their_labels(images: ImageSet) -> None:
    parts = list(images.batches(4))
    assert [len(batch) for batch, _ in parts] == [4, 4, 2]
    for batch, labels in parts:
        assert labels is not None and labels.dtype == torch.int64 and batch.shape[1:] == (1, 2, 2)
        assert (batch[:, 0, 0, 0] * 255).round().long().equal(labels)


def test_select_composes(images: ImageSet) -> None:
    chosen = images.select([8, 6, 4, 2]).select([3, 0])
    assert shown(chosen) == [2, 8]
    assert chosen.labels is not None and chosen.labels.tolist() == [2, 8]


@pytest.mark.parametrize("seed", [0, 1])
def test_sample_is_numpys_permutation(images: ImageSet, seed: int) -> None:
    expected = np.random.RandomState(seed).permutation(10)
    assert shown(images.sample(4, seed)) == expected[:4].tolist()
    assert shown(images.sample(99, seed)) == expected.tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[0::2]", [0, 2, 4, 6, 8]),
        (":3", [0, 1, 2]),
        ("[-2:]", [8, 9]),
        ("[8::-4]", [8, 4, 0]),
        ("[1:3]", [1, 2]),
    ],
)
def test_slice_is_pythons(images: ImageSet, text: str, expected: list[int]) -> None:
    assert shown(images.slice(text)) == expected


@pytest.mark.parametrize("text", ["[3]", "[a:b]", "", "[::0]", "[1:2:3:4]", "[20:]"])
def test_what_is_no_slice_or_empty_is_refused(images: ImageSet, text: str) -> None:
    with pytest.raises(DataError):
        images.slice(text)


@pytest.mark.parametrize("indices", [[], [10], [-1]])
def test_select_checks_its_bounds(images: ImageSet, indices: list[int]) -> None:
    with pytest.raises(DataError, match="0 to 9"):
        images.select(indices)


def test_counts_and_sizes_are_checked(images: ImageSet) -> None:
    with pytest.raises(DataError, match="at least 1"):
        images.sample(0, seed=0)
    with pytest.raises(DataError, match="seed"):
        images.sample(1, seed=-1)
    with pytest.raises(DataError, match="batch_size"):
        next(images.batches(0))


def test_labels_must_fit() -> None:
    source = TensorSource(torch.zeros(3, 1))
    for labels in (np.zeros(2, np.int64), np.array([0, -1, 2]), np.zeros(3, np.int32)):
        with pytest.raises(DataError, match="label"):
            ImageSet(source, Preprocessing(), labels)


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        ImageSet(TensorSource(torch.zeros(0, 1)), Preprocessing())


def test_tensor_checks_its_size_before_it_is_built(images: ImageSet) -> None:
    with pytest.raises(DataError, match="batches"):
        images.tensor(limit_bytes=159)
    assert images.tensor(limit_bytes=160).shape == (10, 1, 2, 2)
