"""Any codec, trained by the straight-through estimator (arXiv 1308.3432): rounded forward, the identity backward."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, cast

import torch
from torch import Tensor

from corank.codecs import Codebook, Codec, RateUniform, ScalarCodebook, StatsQ
from corank.codecs.scaled import ScaledLevels
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError
from corank.training.weights.base import STARTS, TrainableWeight, WeightStart, WeightTraining, straight_through
from corank.training.weights.cells import into_cells, with_scale

__all__ = ["StraightThrough", "StraightThroughWeight", "exact_tensors"]


_EVERY = 50  # steps between fits that search
_SLIGHT = 2e-3


@dataclass(frozen=True)
class StraightThrough(WeightTraining):
    """The layer computes with the nearest values of the codec; gradients reach the float weight as they are.

    Args:
        codec: which values.
        refit: steps after which the codebook is fitted to the float weight anew: 1 before every pass, so that scales
            follow the weights; 0 never; None: 1 where the scale is a plain statistic of the row (StatsQ, Binary, ...),
            every 50 steps where it is searched. A codec whose size is found as it is fitted (ICQuant) is fitted always.
        clip: whether weights beyond the outermost level get no gradient.
    """

    codec: Codec = field(default_factory=StatsQ)
    refit: int | None = None
    clip: bool = False
    starts: ClassVar[tuple[str, ...]] = STARTS

    def __post_init__(self) -> None:
        if self.refit is not None and (type(self.refit) is not int or self.refit < 0):
            raise ConfigError(f"refit={self.refit!r}: steps, 0 for never, e.g. StraightThrough(StatsQ(2), refit=1)")
        if self.refit not in (None, 1) and self._grows:
            kind = type(self.codec).__name__
            raise ConfigError(f"refit={self.refit!r}: what {kind} stores has another size each time: refit=1, or None")

    @property
    def stored(self) -> Codec:
        return self.codec

    @property
    def _grows(self) -> bool:
        return type(self.codec).with_measured_size is not Codec.with_measured_size

    @property
    def every(self) -> int:
        """Steps between fits, 0 for never."""
        if self.refit is not None:
            return self.refit
        if self._grows:
            return 1
        own = type(self.codec).fit_scale if isinstance(self.codec, ScaledLevels) else ScaledLevels.fit_scale
        return 1 if own not in (ScaledLevels.fit_scale, RateUniform.fit_scale) else _EVERY

    def start(self, given: WeightStart) -> tuple[TrainableWeight, Tensor]:
        codec, weight = self.codec, given.weight
        if given.coded is None:
            return StraightThroughWeight(self, codec.fit(weight), weight), weight
        book, codes = given.coded.codebook, given.coded.codes
        if not isinstance(book, ScalarCodebook):
            weight = book.values(codes)  # what is known of other kinds of cells is that a value lies in its own
        elif self.every == 1 and isinstance(codec, ScaledLevels) and codec.group <= 0:
            weight = with_scale(book, codes, weight, lambda now: codec.fit(now).scale)
        else:
            # as it is read back: some codecs round by thresholds of their own only when they are fitted
            weight = into_cells(cast(ScalarCodebook, codec.codebook(exact_tensors(book), *weight.shape)), codes, weight)
        return StraightThroughWeight(self, book, weight), weight


class StraightThroughWeight(TrainableWeight):
    """See :class:`StraightThrough`."""

    def __init__(self, how: StraightThrough, book: Codebook, weight: Tensor) -> None:
        super().__init__()
        self._how = how
        if how.every == 1 and isinstance(book, ScalarCodebook) and isinstance(how.codec, ScaledLevels):
            # The statistic of the first weight is the start's scale but for the rounding of fp16.
            ratio = book.scale / how.codec.fit(weight.detach()).scale
            self.register_buffer("ratio", torch.where((ratio - 1).abs() < _SLIGHT, ratio, torch.ones_like(ratio)))
            return
        for name, tensor in exact_tensors(book).items():
            self.register_buffer(f"book_{name}", tensor)

    @property
    def codec(self) -> Codec:
        return self._how.codec

    def book(self, weight: Tensor) -> Codebook:
        """The codebook that a weight ``(R, C)`` is rounded by now."""
        if self._how.every == 1:
            book, ratio = self.codec.fit(weight.detach()), self._buffers.get("ratio")
            if isinstance(book, ScalarCodebook) and ratio is not None:
                return replace(book, scale=book.scale * ratio)
            return book
        kept = {name.removeprefix("book_"): tensor for name, tensor in self.named_buffers()}
        return self.codec.codebook(kept, *weight.shape)

    def forward(self, weight: Tensor) -> Tensor:
        with torch.no_grad():
            book = self.book(weight)
            value = book.values(book.nearest(weight))
        if self._how.clip and isinstance(book, ScalarCodebook) and weight.requires_grad:
            level = book.in_levels(weight.detach())
            inside = (level >= book.levels[0]) & (level <= book.levels[-1])
            weight = torch.where(inside, weight, weight.detach())
        return straight_through(value, weight)

    def coded(self, weight: Tensor) -> CodedWeight:
        book = self.book(weight)
        return CodedWeight(book.nearest(weight.detach()), book)

    def after_step(self, weight: Tensor, step: int) -> None:
        if self._how.every > 1 and (step + 1) % self._how.every == 0:
            for name, tensor in exact_tensors(self.codec.fit(weight.detach())).items():
                self.get_buffer(f"book_{name}").copy_(tensor)


def exact_tensors(book: Codebook) -> dict[str, Tensor]:
    """What a codebook stores, flat, its scales as they are: those of a start need not be of fp16."""
    kept = {name: t.float() if t.is_floating_point() else t for name, t in book.tensors().items()}
    if isinstance(book, ScalarCodebook) and "scale" in kept:
        kept["scale"] = book.scale
    return {name: tensor.reshape(-1).clone() for name, tensor in kept.items()}
