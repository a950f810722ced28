"""Data of a tuning in three parts that share nothing: to calibrate on, to choose on, and for the final number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corank.calibration import Samples
from corank.data import BatchSet, ImageSet, TokenSet
from corank.data.arrays import TensorSource
from corank.data.preprocessing import Preprocessing
from corank.errors import DataError

__all__ = ["Parts", "read_parts"]

Rows = ImageSet | TokenSet | BatchSet
_LEAST = 3  # samples that can be parted
_BATCH = 50


@dataclass(frozen=True)
class Parts:
    """Samples without, and where they are scored by them with, their labels."""

    calibration: Samples
    selection: tuple[Samples, Tensor | None]
    final: tuple[Samples, Tensor | None]


def read_parts(data: Any, evaluation: Any, counts: tuple[int, int], seed: int) -> Parts:
    """Draws the parts.

    Args:
        data: as for :func:`corank.quantize`; its labels are never read. An iterable is read once.
        evaluation: samples to choose and report on, with labels to be scored by them; None: of ``data``, too.
        counts: samples of calibration, and of selection; the final part gets the rest, at most as many as the
            selection. Where there are too few, calibration keeps half of them and selection half of the rest.
        seed: of the draws. Calibration samples are the first drawn, as ``quantize`` draws them.

    Raises:
        DataError: for data that cannot be parted.
    """
    rows = _rows(data)
    order = np.random.RandomState(seed).permutation(len(rows))
    if len(order) < _LEAST:
        raise DataError(
            f"{len(order)} samples cannot be parted in calibration, selection and final; give dozens at least"
        )
    if evaluation is None:
        most = max(1, len(order) // 2)
        calibration, rest = order[: min(counts[0], most)], order[min(counts[0], most) :]
        scored = rows
    else:
        calibration, scored = order[: counts[0]], _rows(evaluation)
        rest = np.random.RandomState(seed).permutation(len(scored))
    chosen = min(counts[1], max(1, len(rest) // 2))
    selection, final = rest[:chosen], rest[chosen : 2 * chosen]
    if not len(final):
        raise DataError(f"{len(rest)} samples leave none for the final number; give some dozens to choose on")
    labelled = evaluation is not None
    return Parts(_part(rows, calibration, False)[0], _part(scored, selection, labelled), _part(scored, final, labelled))


def _rows(data: Any) -> Rows:
    if isinstance(data, (ImageSet, TokenSet, BatchSet)):
        return data
    if isinstance(data, Tensor):
        if data.dim() == 2 and not data.is_floating_point():
            return TokenSet(data.detach().cpu().long())
        return ImageSet(TensorSource(data.detach().cpu()), Preprocessing())
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(one, Tensor) for one in data):
        return BatchSet.of([data], "the data")
    return BatchSet.of(data, "the data")


def _part(rows: Rows, indices: NDArray[np.int64], labelled: bool) -> tuple[Samples, Tensor | None]:
    pairs = list(_batches(rows, indices))
    labels = [label for _, label in pairs if label is not None] if labelled else []
    samples = Samples.of([inputs for inputs, _ in pairs], len(indices), _BATCH)
    return samples, torch.cat(labels) if labels else None


def _batches(rows: Rows, indices: NDArray[np.int64]) -> Iterator[tuple[Any, Tensor | None]]:
    if isinstance(rows, TokenSet):
        yield from TokenSet(rows.ids[torch.from_numpy(indices)]).batches(_BATCH)
    elif isinstance(rows, ImageSet):
        yield from rows.select(indices).batches(_BATCH)
    else:
        part = rows.select(indices)
        yield from zip(part.inputs, part.labels or [None] * len(part.inputs), strict=True)
