"""A set of images, labelled or not, decoded only when it is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corank.data.decode import different_sizes
from corank.data.preprocessing import Preprocessing
from corank.errors import DataError

__all__ = ["ImageSet", "Source", "sliced"]

SLICE = re.compile(r"\[?(-?\d*):(-?\d*)(?::(-?\d*))?\]?")
TENSOR_LIMIT_BYTES = 4_000_000_000


class Source(Protocol):
    """Where the images come from: a folder, an archive, an array."""

    def __len__(self) -> int:
        """How many images there are."""
        ...

    def batch(self, indices: NDArray[np.int64], preprocessing: Preprocessing) -> Tensor:
        """The images at `indices`, ready for the network: float32 (N, C, H, W)."""
        ...


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images in a fixed order, with or without labels; `len` counts them.

    Args:
        source: what reads the images.
        preprocessing: how each image becomes a network's input.
        labels: int64 (N,), the class of each image of this set; None where there are none.
        class_names: the name of each class, in the order of its index; None where there are none.
        indices: int64 (N,), the positions in `source` that make up this set; None means all.

    Raises:
        DataError: an empty set, labels of another length, a label below 0.
    """

    source: Source
    preprocessing: Preprocessing
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] | None = None
    indices: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if len(self) == 0:
            raise DataError("the set of images is empty; give at least one image")
        if self.labels is None:
            return
        if self.labels.shape != (len(self),) or self.labels.dtype != np.int64:
            raise DataError(
                f"labels are {self.labels.dtype} {self.labels.shape} for {len(self)} images; give int64 ({len(self)},)"
            )
        if self.labels.min() < 0:
            raise DataError(f"a label is {self.labels.min()}; labels are class indices from 0")

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.source) if self.indices is None else len(self.indices)

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> ImageSet:
        """The images at these positions, in this order.

        Args:
            indices: positions in this set, 0 to len - 1.

        Raises:
            DataError: no position, or one outside of the set.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if chosen.ndim != 1 or chosen.size == 0 or chosen.min() < 0 or chosen.max() >= len(self):
            raise DataError(f"select needs one or more positions from 0 to {len(self) - 1}")
        return replace(
            self,
            labels=None if self.labels is None else self.labels[chosen],
            indices=chosen if self.indices is None else self.indices[chosen],
        )

    def sample(self, count: int, seed: int) -> ImageSet:
        """Draw images without replacement: `numpy.random.RandomState(seed).permutation(len)[:count]`.

        Args:
            count: how many images; more than there are gives all of them, shuffled.
            seed: 0 to 2**32 - 1; the same seed draws the same images in the same order.

        Raises:
            DataError: a count below 1 or a seed that is not possible.
        """
        if count < 1:
            raise DataError(f"{count} images were asked for; sample at least 1")
        if not 0 <= seed < 2**32:
            raise DataError(f"seed is {seed}; give 0 to 2**32 - 1")
        return self.select(np.random.RandomState(seed).permutation(len(self))[:count])

    def slice(self, text: str) -> ImageSet:
        """The images of a Python slice given as text, such as "0::2", ":1000" or "[-100:]".

        Raises:
            DataError: not a slice, a step of 0, or a slice that holds no image.
        """
        return self.select(sliced(text, len(self), "images"))

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Decode the images batch by batch, in order.

        Args:
            batch_size: images per batch; the last batch may be smaller.

        Yields:
            images float32 (N, C, H, W), and labels int64 (N,) or None.

        Raises:
            DataError: an image that cannot be read, images of different sizes, a batch size below 1.
        """
        if batch_size < 1:
            raise DataError(f"batch_size is {batch_size}; give at least 1")
        indices = np.arange(len(self), dtype=np.int64) if self.indices is None else self.indices
        shape: torch.Size | None = None
        for start in range(0, len(self), batch_size):
            images = self.source.batch(indices[start : start + batch_size], self.preprocessing)
            if shape is not None and images.shape[1:] != shape:
                raise DataError(different_sizes(shape[1:], "image 0", images.shape[2:], f"image {start} of the set"))
            shape = images.shape[1:]
            labels = None
            if self.labels is not None:
                labels = torch.from_numpy(self.labels[start : start + batch_size])
            yield images, labels

    def tensor(self, limit_bytes: int = TENSOR_LIMIT_BYTES) -> Tensor:
        """All images at once: float32 (N, C, H, W).

        Args:
            limit_bytes: the largest tensor to build; checked before it is.

        Raises:
            DataError: the tensor would be larger, or an image cannot be read.
        """
        first = next(self.select([0]).batches(1))[0]
        size_bytes = len(self) * first.numel() * first.element_size()
        if size_bytes > limit_bytes:
            raise DataError(
                f"{len(self)} images make a tensor of {size_bytes / 1e9:.1f} GB, over the limit of "
                f"{limit_bytes / 1e9:.1f} GB; read them with batches(64), or fewer: sample(1000, seed=0)"
            )
        whole, filled = first.new_empty((len(self), *first.shape[1:])), 0
        for images, _ in self.batches(256):
            if images.shape[1:] != whole.shape[1:]:
                raise DataError(different_sizes(whole.shape[2:], "image 0", images.shape[2:], f"image {filled}"))
            whole[filled : filled + len(images)] = images
            filled += len(images)
        return whole


def sliced(text: str, count: int, what: str) -> NDArray[np.int64]:
    """The positions of a Python slice given as text, of `count` images (or `what` they are).

    Raises:
        DataError: not a slice, a step of 0, or a slice that holds none.
    """
    match = SLICE.fullmatch(text.strip())
    start, stop, step = (int(part) if part else None for part in match.groups()) if match else (0, 0, 0)
    if step == 0:
        raise DataError(f"{text!r} is not a slice; write [start:stop] or [start:stop:step], such as [0::2]")
    chosen = np.arange(count, dtype=np.int64)[start:stop:step]
    if chosen.size == 0:
        raise DataError(f"the slice {text!r} holds none of the {count} {what}")
    return chosen
