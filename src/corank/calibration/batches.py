"""What a training reads: batches that are a function of the seed and the step, with their labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from corank.calibration.labels import check_fit, following_tokens, inputs_and_labels
from corank.calibration.samples import Samples, sequences
from corank.calibration.seeds import generator_of, seed_of, shuffled_in_turn
from corank.checkpoint import fingerprint
from corank.errors import DataError
from corank.memory import free_bytes

__all__ = ["Batches", "Source"]

_SPARED = 0.2  # share of the free memory that reading samples must leave
_LOOKED_AT = 64  # samples that tell one data set from another


class Source(Protocol):
    """Samples in a fixed order, of one shape each, that are read when they are asked for."""

    @property
    def labels(self) -> tuple[Tensor, ...]:
        """All labels, in pieces; empty where there are none."""
        ...

    def __len__(self) -> int:
        """How many samples there are."""
        ...

    def rows(self, indices: Tensor) -> tuple[Any, Tensor | None]:
        """The samples at ``indices`` ``(n,)`` as a model in float32 takes them, on the CPU, and their labels."""
        ...


class Batches:
    """The batches of a training: the ``step``-th is the same whenever and wherever it is asked for.

    Each epoch is a permutation of its own, drawn from the seed and the epoch's number; what is left over at its end,
    less than a batch, is dropped. Samples that cannot be stacked keep the batches that they came in, one a step.

    Args:
        source: of the samples; :meth:`of` makes one of what is in memory.
        batch_size: samples a step, over all processes; of token sequences, as many as hold ``64 * batch_size`` tokens.
        seed: of the permutations.
        groups: int64 ``(N,)``, where samples are read group by group, such as shards that lie far away: the number of
            each sample's group. Permutations then mix neighbouring groups, see
            :func:`~corank.calibration.seeds.shuffled_in_turn`. None: they mix all samples.

    Attributes:
        source, seed, groups: as given.
        stacked: whether samples can stand in one batch with any other.
        batch_size: samples a step, at most as many as there are; of samples that cannot be stacked, of their largest
            batch.
    """

    def __init__(self, source: Source, batch_size: int = 128, seed: int = 0, groups: Tensor | None = None) -> None:
        self.source, self.seed, self.groups = source, seed, groups
        self.stacked = not isinstance(source, _Apart)
        self._first = source.rows(torch.zeros(1, dtype=torch.int64))
        self._size = min(sequences(batch_size, self._first[0]), len(source)) if self.stacked else 1
        self.batch_size = source.largest if isinstance(source, _Apart) else self._size
        self._orders: dict[int, Tensor] = {}

    @classmethod
    def of(
        cls, data: Any, labels: Tensor | None = None, batch_size: int = 128, seed: int = 0, samples: int | None = None
    ) -> Batches:
        """Of samples in memory, which are not copied.

        Args:
            data: a tensor ``(N, ...)`` or a mapping of such by the names of the model's arguments, whole; or an
                iterable of batches, read once: tensors, ``(inputs, labels)`` pairs, or mappings, of which samples that
                are padding alone are left out. Labels may stand in a mapping under "labels", "label" or "target".
            labels: of ``data`` that is whole; ``(N,)`` classes, ``(N, T)`` of token sequences (what position t
                predicts; -100: nothing), or floating ``(N, ...)``.
            batch_size, seed: as for :class:`Batches`.
            samples: to take, from the front; None: all.

        Raises:
            DataError: for no samples, other types, values that are not finite, labels of some batches alone, or more
                than memory holds.
        """
        if isinstance(data, Tensor) and data.dim() < 2:
            raise DataError(f"training data of shape {tuple(data.shape)}; expected (N, ...), e.g. (256, 3, 224, 224)")
        if isinstance(data, (Tensor, Mapping)):
            data = [data if labels is None else (data, labels)]
        elif labels is not None:
            raise DataError("labels of batches stand with each: a list of (inputs, labels)")
        if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
            raise DataError(
                "training data is a tensor (N, ...), a mapping of such or an iterable of batches, not "
                f"{type(data).__name__}; for files use corank.data.load(PATH)"
            )
        read = list(_read(data, samples))
        if not read:
            raise DataError("the training data is empty; a few hundred samples are needed")
        labelled = sum(own is not None for _, own in read)
        if labelled not in (0, len(read)):
            raise DataError(f"only {labelled} of the {len(read)} batches have labels; label all or none")
        return cls(_held(read), batch_size, seed)

    def __len__(self) -> int:
        """How many samples there are."""
        return self.source.samples if isinstance(self.source, _Apart) else len(self.source)

    def __call__(self, step: int) -> tuple[Any, Tensor | None]:
        """Inputs and labels of step ``step``, from 0: :meth:`part` of all."""
        return self.part(step, 0, self.count(step))

    def part(self, step: int, start: int, count: int) -> tuple[Any, Tensor | None]:
        """Inputs, and labels or None, of ``count`` samples of a step's batch from the ``start``-th on; the others are
        not read. Token sequences without labels have their next tokens, see :func:`following_tokens`."""
        draw = self.draw(step)
        inputs, labels = self.source.rows(draw[start : start + count] if self.stacked else draw)
        if not self.stacked:
            inputs = tree_map(lambda leaf: leaf[start : start + count], inputs)
            labels = None if labels is None else labels[start : start + count]
        return inputs, following_tokens(inputs) if labels is None else labels

    def count(self, step: int) -> int:
        """Samples of a step's batch, over all processes."""
        return self._size if self.stacked else _count(self.source.rows(self.draw(step))[0])

    @property
    def smallest(self) -> int:
        """Samples of the smallest batch, over all processes."""
        return self._size if self.stacked else min(map(self.count, range(self.steps_an_epoch)))

    def draw(self, step: int) -> Tensor:
        """The indices ``(n,)`` of a step's samples in the source; of samples that cannot be stacked, of their batch."""
        epoch, place = divmod(step, self.steps_an_epoch)
        return self._order(epoch)[place * self._size : (place + 1) * self._size]

    def _order(self, epoch: int) -> Tensor:
        """The permutation of an epoch; threads that read ahead may ask for that of the next one beside it."""
        found = self._orders.get(epoch)
        if found is None:
            generator = generator_of(self.seed, "epoch", epoch)
            if self.groups is None:
                found = torch.randperm(len(self.source), generator=generator)
            else:
                found = shuffled_in_turn(self.groups, generator)
            self._orders = {
                **{near: kept for near, kept in self._orders.items() if abs(near - epoch) == 1},
                epoch: found,
            }
        return found

    @property
    def steps_an_epoch(self) -> int:
        """Steps in which every sample is seen once, but for those left over."""
        return max(1, len(self.source) // self._size)

    def step_seed(self, step: int) -> int:
        """A seed of its own for each step, such as of its augmentation."""
        return seed_of(self.seed, "step", step)

    @property
    def labelled(self) -> bool:
        """Whether there are labels; token sequences have their next tokens."""
        return bool(self.source.labels) or following_tokens(self._first[0]) is not None

    def first(self, count: int) -> Any:
        """The inputs of at most ``count`` samples, for watching the model run."""
        if self.stacked:
            return self.source.rows(torch.arange(min(count, len(self.source))))[0]
        return tree_map(lambda leaf: leaf[:count], self._first[0])

    def samples(self, limit: int, batch_size: int = 32) -> Samples:
        """The inputs of the first ``limit`` samples, without their labels."""
        if self.stacked:
            draws = torch.arange(min(limit, len(self.source))).split(sequences(batch_size, self._first[0]))
        else:
            draws = torch.arange(len(self.source)).split(1)
        return Samples.of((self.source.rows(draw)[0] for draw in draws), limit)

    def check_labels(self, loss: str, output: Any = None) -> None:
        """Raises DataError where a loss ("distil", "labels" or "both") needs labels and they are missing, or, beside
        the model's ``output`` of any of the samples, do not fit it."""
        if loss == "distil":
            return
        if not self.labelled:
            raise DataError(
                f"loss={loss!r} needs labels, and this data has none: give (inputs, labels) batches, mappings with "
                "'labels' or images in one folder per class; or loss='distil', which learns from the float network"
            )
        for piece in self.source.labels or (following_tokens(self.first(1)),):
            check_fit(piece, self._first[0], output)

    @cached_property
    def identity(self) -> str:
        """Tells these samples from others: a hash of their number, of 64 of them and of all labels."""
        spread = torch.linspace(0, len(self.source) - 1, min(_LOOKED_AT, len(self.source)), dtype=torch.float64).long()
        rows = [self.source.rows(place[None])[0] for place in spread]
        count = torch.tensor([len(self), len(self.source)], dtype=torch.int64)
        groups = [] if self.groups is None else [self.groups]
        return fingerprint([count, *tree_leaves(rows), *self.source.labels, *groups])


class _Held:
    """Samples that can be stacked, in pieces as they came: stacking them all would need twice the memory."""

    def __init__(self, pieces: Sequence[tuple[Any, Tensor | None]]) -> None:
        self._leaves = [tree_flatten(inputs)[0] for inputs, _ in pieces]
        self._form = tree_flatten(pieces[0][0])[1]
        self.labels = tuple(labels for _, labels in pieces if labels is not None)
        self._ends = torch.tensor([len(leaves[0]) for leaves in self._leaves], dtype=torch.int64).cumsum(0)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def rows(self, indices: Tensor) -> tuple[Any, Tensor | None]:
        leaves = [_in_float32(self._gathered(own, indices)) for own in zip(*self._leaves, strict=True)]
        return tree_unflatten(leaves, self._form), self._gathered(self.labels, indices) if self.labels else None

    def _gathered(self, pieces: Sequence[Tensor], indices: Tensor) -> Tensor:
        if len(pieces) == 1:
            return pieces[0][indices]
        numbers = torch.searchsorted(self._ends, indices, right=True).tolist()
        starts = [0, *self._ends.tolist()]
        places = zip(numbers, indices.tolist(), strict=True)
        return torch.stack([pieces[number][index - starts[number]] for number, index in places])


class _Apart:
    """Batches whose samples cannot be stacked; each counts as one row."""

    def __init__(self, batches: Sequence[tuple[Any, Tensor | None]]) -> None:
        self._batches = tuple(batches)
        self.labels = tuple(labels for _, labels in batches if labels is not None)
        sizes = [_count(inputs) for inputs, _ in batches]
        self.samples, self.largest = sum(sizes), max(sizes)

    def __len__(self) -> int:
        return len(self._batches)

    def rows(self, indices: Tensor) -> tuple[Any, Tensor | None]:
        inputs, labels = self._batches[int(indices)]
        return tree_map(_in_float32, inputs), labels


def _held(read: list[tuple[Any, Tensor | None]]) -> _Held | _Apart:
    def kind(pair: tuple[Any, Tensor | None]) -> tuple[Any, ...]:
        inputs, labels = pair
        leaves = tree_leaves(inputs) if labels is None else [*tree_leaves(inputs), labels]
        return tree_flatten(inputs)[1], [(leaf.shape[1:], leaf.dtype) for leaf in leaves]

    first = kind(read[0])
    return _Held(read) if all(kind(pair) == first for pair in read) else _Apart(read)


def _read(data: Iterable[Any], limit: int | None) -> Iterator[tuple[Any, Tensor | None]]:
    """Inputs and labels of each batch, at most ``limit`` samples."""
    free, total = free_bytes(), 0
    for batch in data:
        inputs, labels = inputs_and_labels(batch)
        count = _count(inputs)
        kept = count if limit is None else min(count, limit - total)
        if kept < count:
            inputs = tree_map(lambda leaf, kept=kept: leaf[:kept], inputs)
            labels = None if labels is None else labels[:kept]
        if kept:
            yield inputs, labels
        total += kept
        if limit is not None and total >= limit:
            return
        left = free_bytes()
        if free is not None and left is not None and left < _SPARED * free:
            raise DataError(
                f"after {total} samples memory is nearly full ({left / 1e9:.1f} GB left); give fewer (samples="
                f"{max(1, total // 2)}), or files of images, which are decoded as they are needed: "
                "corank.data.load(PATH)"
            )


def _in_float32(leaf: Tensor) -> Tensor:
    """What networks train in; half the memory holds the samples of a network in half precision."""
    return leaf.float() if leaf.is_floating_point() else leaf


def _count(inputs: Any) -> int:
    return len(tree_leaves(inputs)[0])
