"""Learned step size quantization (LSQ, arXiv 1902.08153), of any codec with scales."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from corank.codecs import Codec, ScalarCodebook, Uniform
from corank.codecs.places import picked, places
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError
from corank.training.weights.base import TrainableWeight, WeightStart, WeightTraining
from corank.training.weights.cells import into_cells

__all__ = ["LearnedStep", "LearnedStepWeight"]


@dataclass(frozen=True)
class LearnedStep(WeightTraining):
    """``value = s (level - offset)``, the scale ``s`` of every group learned.

    The gradient of ``s`` is LSQ's: ``level - offset`` outside of the range, less ``w / s`` inside; that of a weight is
    the identity inside the range and zero outside. A scale is its start times ``exp`` of what trains, and so positive.

    Args:
        codec: with scales of fp16, one a row, a group or a weight.
        spread: start of the scale in standard deviations of its row; 0 for what the codec fits or the codes have.
    """

    codec: Codec = field(default_factory=lambda: Uniform(4, range="mse"))
    spread: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.spread <= 100:
            raise ConfigError(f"spread={self.spread!r}: standard deviations, 0 for the codec's own scale, e.g. 1.2")

    @property
    def stored(self) -> Codec:
        return self.codec

    def start(self, given: WeightStart) -> tuple[TrainableWeight, Tensor]:
        weight = given.weight
        book = self.codec.fit(weight) if given.coded is None else given.coded.codebook
        if not isinstance(book, ScalarCodebook) or book.scale_bits != 16:
            raise ConfigError(
                f"{type(self.codec).__name__} has no scales of fp16 that could be learned; "
                f"StraightThrough({type(self.codec).__name__}(...)) trains it"
            )
        if self.spread:
            step = self.spread * weight.std(1, keepdim=True).clamp(min=1e-8)
            book = replace(book, scale=step.expand_as(book.scale).contiguous())
        elif given.coded is not None:
            weight = into_cells(book, given.coded.codes, weight)
        return LearnedStepWeight(self.codec, book), weight


class LearnedStepWeight(TrainableWeight):
    """See :class:`LearnedStep`."""

    def __init__(self, codec: Codec, book: ScalarCodebook) -> None:
        super().__init__()
        self._codec, self._book = codec, book
        self.growth = nn.Parameter(torch.zeros_like(book.scale))
        self.register_buffer("scale", book.scale.clone())

    @property
    def codec(self) -> Codec:
        return self._codec

    def book(self, weight: Tensor | None = None) -> ScalarCodebook:
        """The codebook with the scales as they are now, differentiable in them, for a ``weight`` of any shape that they
        fit."""
        start = self.get_buffer("scale")
        moved = self._book
        return replace(moved, scale=start * self.growth.exp(), levels=moved.levels.to(start.device),
                       offset=moved.offset.to(start.device))  # fmt: skip

    def forward(self, weight: Tensor) -> Tensor:
        book = self.book(weight)
        if torch.is_grad_enabled() and (weight.requires_grad or self.growth.requires_grad):
            return _Rounded.apply(weight, book.scale, book)
        return book.values(book.nearest(weight))

    def coded(self, weight: Tensor) -> CodedWeight:
        with torch.no_grad():
            book = self.book()
            return CodedWeight(book.nearest(weight), book)


class _Rounded(torch.autograd.Function):
    """Values of the closest levels. Nothing is kept for the backward pass but the weight, which is there anyway."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor, book: ScalarCodebook) -> Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.book = replace(book, scale=scale.detach())
        return ctx.book.values(ctx.book.nearest(weight))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        (weight, scale), book, gradient = ctx.saved_tensors, ctx.book, grad_outputs[0]
        level = book.in_levels(weight)
        inside = (level >= book.levels[0]) & (level <= book.levels[-1])
        # d value / d scale: level - offset outside of the range; inside less w / scale
        slope = picked(book.levels, places(level, book.middles))
        slope -= torch.where(inside, level, book.spread(book.offset, weight.shape[1]))
        del level
        moved = summed_by_group(slope.mul_(gradient), scale, book.group_size)
        del slope
        return gradient * inside, moved, None


def summed_by_group(values: Tensor, scale: Tensor, size: int) -> Tensor:
    """Sums of ``values`` ``(R, C)`` over what each number of ``scale``, one a group of ``size`` columns, serves."""
    rows, groups = scale.shape
    if rows == 1:
        return values.sum().reshape(1, 1)
    if groups == 1:
        return values.sum(1, keepdim=True)
    padded = torch.nn.functional.pad(values, (0, groups * size - values.shape[1]))
    return padded.reshape(rows, groups, size).sum(2)
