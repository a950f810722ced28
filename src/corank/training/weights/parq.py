"""The piecewise-affine relaxation of PARQ (arXiv 2503.15748): weights drawn to levels by a map that steepens."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from corank.codecs import Binary, Codebook, Codec, ScalarCodebook
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError
from corank.training.weights.base import TrainableWeight, WeightStart, WeightTraining, straight_through
from corank.training.weights.straight_through import StraightThrough, StraightThroughWeight

__all__ = ["Parq", "ParqWeight", "piecewise_affine"]


@dataclass(frozen=True)
class Parq(WeightTraining):
    """The layer computes with :func:`piecewise_affine` of its float weight, whose gradient reaches it as it is.

    That is the aggregate proximal method in the form it is run in: the float weight sums up the gradients found at its
    proximal point. The slope is 1, the identity inside the range, until a callback, such as
    :class:`~corank.training.callbacks.Steepen`, lets it grow. In evaluation mode, and in what ships, the weight is
    rounded to its nearest value whatever the slope is.

    Args:
        codec: which values; any that rounds to the closest.
        refit: steps between fits of the values, as in :class:`StraightThrough`.
    """

    codec: Codec = field(default_factory=Binary)
    refit: int | None = None

    def __post_init__(self) -> None:
        StraightThrough(self.codec, self.refit)  # raises for a number of steps that is none

    @property
    def stored(self) -> Codec:
        return self.codec

    def start(self, given: WeightStart) -> tuple[TrainableWeight, Tensor]:
        inner = StraightThrough(self.codec, self.refit)
        running, weight = inner.start(given)
        assert isinstance(running, StraightThroughWeight)
        book = running.book(weight)
        if isinstance(book, ScalarCodebook) and book.thresholds is not None:
            name = type(self.codec).__name__
            raise ConfigError(
                f"Parq({self.codec!r}): its map turns midway between values, {name}'s thresholds are others"
            )
        return ParqWeight(running), weight


class ParqWeight(TrainableWeight):
    """See :class:`Parq`."""

    def __init__(self, inner: StraightThroughWeight) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("inverse", torch.tensor(1.0, dtype=torch.float32))

    @property
    def codec(self) -> Codec:
        return self.inner.codec

    def steepen(self, inverse: float) -> None:
        """Sets the inverse of the slope: 1 for the identity inside the range, 0 for rounding."""
        self.get_buffer("inverse").fill_(inverse)

    def forward(self, weight: Tensor) -> Tensor:
        if not self.training:
            return self.inner(weight)
        with torch.no_grad():
            value = piecewise_affine(self.inner.book(weight), weight, self.get_buffer("inverse"))
        return straight_through(value, weight)

    def coded(self, weight: Tensor) -> CodedWeight:
        return self.inner.coded(weight)

    def after_step(self, weight: Tensor, step: int) -> None:
        self.inner.after_step(weight, step)


def piecewise_affine(book: Codebook, weight: Tensor, inverse: Tensor) -> Tensor:
    """The proximal map of PARQ: between two values a line of slope ``1 / inverse`` through their middle, cut at both.

    Args:
        book: the values.
        weight: ``(R, C)``; beyond the outermost values it goes to them.
        inverse: a scalar, 1 for the identity inside the range, 0 for the nearest value.

    Returns:
        ``(R, C)``.
    """
    below, above = (book.values(codes) for codes in book.neighbours(weight))
    middle = (below + above) / 2
    more = 1 / inverse.clamp(min=torch.finfo(torch.float32).tiny) - 1
    steep = weight + (weight - middle) * more  # in this form a slope of 1 changes no bit
    return torch.where(inverse > 0, steep.clamp(below, above), book.values(book.nearest(weight)))
