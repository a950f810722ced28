"""Scored many times: samples read once, and outputs of the reference computed once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from corank.data import ImageSet, TokenSet

__all__ = ["Recorder", "Replay", "kept_samples", "scored_tensors"]

MOST_BYTES = 1 << 29


def kept_samples(data: Any, batch_size: int = 100, most_bytes: int = MOST_BYTES) -> Any:
    """``data`` in a form that :func:`~corank.evaluation.evaluate` can read many times.

    Images are decoded once where all of them take at most ``most_bytes``; an iterable becomes a list.
    """
    if isinstance(data, (TokenSet, Tensor)):
        return data
    if not isinstance(data, ImageSet):
        return list(data)
    held, used = [], 0
    for batch in data.batches(batch_size):
        held.append(batch)
        used += batch[0].nbytes
        if used > most_bytes:
            return data
    return held


def scored_tensors(kept: Any, batch_size: int = 100) -> Iterator[Tensor]:
    """All inputs and labels of what :func:`kept_samples` gives, in order; images that are not held are decoded anew."""
    if isinstance(kept, TokenSet):
        yield kept.ids
        return
    for batch in (
        kept.batches(batch_size) if isinstance(kept, ImageSet) else [kept] if isinstance(kept, Tensor) else kept
    ):
        yield from (leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor))


class Recorder(nn.Module):
    """A model that keeps its outputs, in order, while they take at most ``most_bytes``.

    Attributes:
        outputs: so far; None once there were too many.
    """

    def __init__(self, model: nn.Module, most_bytes: int = MOST_BYTES) -> None:
        super().__init__()
        self._model, self._room = model, most_bytes
        self.outputs: list[Any] | None = []

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The model's output."""
        output = self._model(*inputs, **named)
        self._room -= sum(leaf.nbytes for leaf in tree_leaves(output) if isinstance(leaf, Tensor))
        if self.outputs is not None and self._room >= 0:
            self.outputs.append(output)
        else:
            self.outputs = None
        return output


class Replay(nn.Module):
    """Gives recorded outputs in order, whatever it is given: for the same samples in the same batches, once."""

    def __init__(self, outputs: list[Any]) -> None:
        super().__init__()
        self._left: Iterator[Any] = iter(outputs)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The next output."""
        return next(self._left)
