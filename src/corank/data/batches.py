"""Samples for models of several inputs, or of inputs that are no images: batches as the model takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corank.data.images import sliced
from corank.errors import DataError

__all__ = ["BatchSet"]

LABELS = ("labels", "label", "target")
BATCH = 32
FORMS = "a tensor (N, ...), a mapping of tensors by the names of the model's arguments, or (inputs, labels)"

Inputs = Tensor | dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class BatchSet:
    """Batches in a fixed order; `len` counts samples, and iterating gives batches as `evaluate` takes them.

    Args:
        inputs: of each batch: a tensor (n, ...), or a mapping of such by the names of the model's arguments.
        labels: of each batch, int64 (n,); None where there are none.

    Raises:
        DataError: no batch, or tensors of one batch that do not have one length.
    """

    inputs: tuple[Inputs, ...]
    labels: tuple[Tensor, ...] | None = None

    def __post_init__(self) -> None:
        if not self.inputs:
            raise DataError("there is no batch; give at least one")
        for place, batch in enumerate(self.inputs):
            lengths = [tensor.shape[0] for tensor in _tensors(batch)]
            if self.labels is not None:
                lengths.append(len(self.labels[place]))
            if not lengths or len(set(lengths)) > 1 or lengths[0] < 1:
                raise DataError(f"batch {place} holds tensors of {lengths} samples; all of a batch have one length")

    @classmethod
    def of(cls, returned: Any, name: str) -> BatchSet:
        """The batches in what a function returned: a mapping, which is cut, or batches in an iterable.

        Class labels are the second of a pair, or a tensor (n,) of whole numbers under "labels", "label" or "target".

        Raises:
            DataError: anything else, `name` being what it is called.
        """
        if isinstance(returned, Mapping):
            returned = [returned]
        if isinstance(returned, (str, bytes)) or not isinstance(returned, Iterable):
            raise DataError(f"{name} returned {type(returned).__name__}; return batches, each {FORMS}")
        pairs = [_pair(batch, f"batch {place} of {name}") for place, batch in enumerate(returned)]
        if not pairs:
            raise DataError(f"{name} returned no batch; return at least one, {FORMS}")
        labelled = [labels for _, labels in pairs if labels is not None]
        if labelled and len(labelled) < len(pairs):
            raise DataError(
                f"only {len(labelled)} of the {len(pairs)} batches of {name} have labels; label all or none"
            )
        found = cls(tuple(inputs for inputs, _ in pairs), tuple(labelled) if labelled else None)
        return found.select(range(len(found))) if len(pairs) == 1 else found

    def __len__(self) -> int:
        """How many samples there are."""
        return sum(map(_count, self.inputs))

    def __iter__(self) -> Iterator[Any]:
        if self.labels is None:
            yield from self.inputs
        else:
            yield from zip(self.inputs, self.labels, strict=True)

    def first(self, count: int) -> Inputs:
        """The inputs of at most `count` samples."""
        return self.select(range(min(count, _count(self.inputs[0])))).inputs[0]

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> BatchSet:
        """The samples at these positions, in this order, in batches of at most 32 that can be stacked.

        Raises:
            DataError: no position, or one outside of the set.
        """
        chosen = [int(index) for index in indices]
        if not chosen or min(chosen) < 0 or max(chosen) >= len(self):
            raise DataError(f"select needs one or more positions from 0 to {len(self) - 1}")
        starts = np.cumsum([0, *map(_count, self.inputs)])
        groups: list[list[tuple[int, int]]] = []  # places (batch, row) that can stand in one batch
        for index in chosen:
            batch = int(np.searchsorted(starts, index, side="right")) - 1
            place = (batch, index - int(starts[batch]))
            alike = bool(groups) and _kind(self.inputs[groups[-1][0][0]]) == _kind(self.inputs[batch])
            if alike and len(groups[-1]) < BATCH:
                groups[-1].append(place)
            else:
                groups.append([place])
        labels = self.labels
        return BatchSet(
            tuple(_gathered(self.inputs, group) for group in groups),
            None
            if labels is None
            else tuple(torch.stack([labels[one][row] for one, row in group]) for group in groups),
        )

    def sample(self, count: int, seed: int) -> BatchSet:
        """Draw samples without replacement: `numpy.random.RandomState(seed).permutation(len)[:count]`.

        Raises:
            DataError: a count below 1 or a seed that is not possible.
        """
        if count < 1 or not 0 <= seed < 2**32:
            raise DataError(f"{count} samples by seed {seed}: draw at least 1, by a seed from 0 to 2**32 - 1")
        return self.select(np.random.RandomState(seed).permutation(len(self))[:count])

    def slice(self, text: str) -> BatchSet:
        """The samples of a Python slice given as text, such as "0::2", ":1000" or "[-100:]".

        Raises:
            DataError: not a slice, a step of 0, or a slice that holds no sample.
        """
        return self.select(sliced(text, len(self), "samples"))


def _pair(batch: Any, name: str) -> tuple[Inputs, Tensor | None]:
    """Inputs and class labels of a batch."""
    labels = None
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        batch, labels = batch
    if isinstance(batch, Mapping):
        inputs = {str(key): _tensor(value, f"{key!r} in {name}") for key, value in batch.items()}
        for key in LABELS:
            if labels is None and key in inputs and inputs[key].dim() == 1 and not inputs[key].is_floating_point():
                labels = inputs.pop(key)
        found: Inputs = inputs
    else:
        found = _tensor(batch, name)
    if labels is None:
        return found, None
    classes = _tensor(labels, f"the labels of {name}")
    if classes.dim() != 1 or classes.is_floating_point():
        raise DataError(f"the labels of {name} are {classes.dtype} {tuple(classes.shape)}; give whole numbers (N,)")
    return found, classes.long()


def _tensor(value: Any, name: str) -> Tensor:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        value = torch.from_numpy(np.ascontiguousarray(value))
    elif isinstance(value, (list, range)) and value and all(type(one) is int for one in value):
        value = torch.tensor(value)
    if not isinstance(value, Tensor) or value.dim() < 1:
        raise DataError(f"{name} is {type(value).__name__}; a batch is {FORMS}")
    return value.detach().cpu()


def _tensors(batch: Inputs) -> list[Tensor]:
    return [batch] if isinstance(batch, Tensor) else list(batch.values())


def _count(batch: Inputs) -> int:
    return int(_tensors(batch)[0].shape[0])


def _kind(batch: Inputs) -> tuple[Any, ...]:
    names = ("",) if isinstance(batch, Tensor) else tuple(batch)
    return (names, *((tensor.shape[1:], tensor.dtype) for tensor in _tensors(batch)))


def _gathered(batches: tuple[Inputs, ...], places: list[tuple[int, int]]) -> Inputs:
    first = batches[places[0][0]]
    if isinstance(first, Tensor):
        return torch.stack([_plain(batches[batch])[row] for batch, row in places])
    return {key: torch.stack([_named(batches[batch])[key][row] for batch, row in places]) for key in first}


def _plain(batch: Inputs) -> Tensor:
    assert isinstance(batch, Tensor)
    return batch


def _named(batch: Inputs) -> dict[str, Tensor]:
    assert isinstance(batch, dict)
    return batch
