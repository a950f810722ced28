"""Labelled samples in the two forms that say how many there are: a set of images, or a tensor and its labels."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from corank.data import ImageSet
from corank.errors import DataError

__all__ = ["in_memory", "labels_of"]


def labels_of(data: Any, what: str) -> Tensor:
    """The labels, int64 ``(N,)`` on the CPU.

    Raises:
        DataError: for anything else than an ImageSet with labels, or a tensor ``(N, ...)`` and labels ``(N,)``, naming
            it ``what``.
    """
    if isinstance(data, ImageSet):
        if data.labels is None:
            raise DataError(f"{what}: these images have no labels; give one folder for each class, or (images, labels)")
        return torch.from_numpy(data.labels)
    if not (isinstance(data, tuple) and len(data) == 2 and all(isinstance(one, Tensor) for one in data)):
        raise DataError(f"{what}: an ImageSet with labels, or a tensor (N, ...) and labels (N,), not {_kind(data)}")
    inputs, labels = cast(tuple[Tensor, Tensor], data)
    if labels.shape != inputs.shape[:1] or labels.is_floating_point() or not len(labels):
        raise DataError(
            f"{what}: labels {labels.dtype} {tuple(labels.shape)} for inputs {tuple(inputs.shape)}; give whole numbers "
            "(N,), one for each sample"
        )
    return labels.detach().cpu().long()


def in_memory(data: Any, what: str) -> tuple[Tensor, Tensor]:
    """All inputs ``(N, ...)`` and labels ``(N,)``, on the CPU; as :func:`labels_of`."""
    labels = labels_of(data, what)
    inputs = data.tensor() if isinstance(data, ImageSet) else cast(tuple[Tensor, Tensor], data)[0].detach().cpu()
    return inputs, labels


def _kind(data: Any) -> str:
    return f"a {type(data).__name__}"
