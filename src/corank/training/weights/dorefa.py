"""DoReFa-Net's weights (arXiv 1606.06160): squeezed by tanh to a fixed range, and rounded there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from corank.codecs import Binary, Codec, ScalarCodebook, StatsQ
from corank.codecs.base import as_stored
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError
from corank.training.weights.base import TrainableWeight, WeightStart, WeightTraining, straight_through
from corank.training.weights.cells import into_cells
from corank.training.weights.straight_through import StraightThrough

__all__ = ["DoReFa", "DoReFaWeight"]

_SMALLEST, _LARGEST = 1e-12, 0.999  # of tanh(w): one that is not zero, and one that can be undone


@dataclass(frozen=True)
class DoReFa(WeightTraining):
    """``w = u (2 round((2^k - 1) x) / (2^k - 1) - 1)``, ``x = tanh(w) / (2 max |tanh(w)|) + 1/2``, over the weight.

    At 1 bit ``w = mean|w| sign(w)``. The rounding's gradient is the identity, that of tanh and of the maximum are
    their own. In the paper ``u`` is 1, and a norm takes up what that does to a trained network; here it is a constant,
    the largest weight that training starts from. Of those levels, odd multiples of ``u / (2^k - 1)``, the file is one
    of :class:`~corank.codecs.StatsQ`'s with one scale, or at 1 bit :class:`~corank.codecs.Binary`'s.

    From codes, ``u`` is beyond the outermost level where the codes' scale clips.

    Args:
        bits: 1 to 8.
    """

    starts: ClassVar[tuple[str, ...]] = ("codes", "float", "scratch")
    bits: int = 4

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 1 <= self.bits <= 8:
            raise ConfigError(f"bits={self.bits!r}: DoReFa takes 1 to 8, e.g. DoReFa(4)")

    @property
    def stored(self) -> Binary | StatsQ:
        return Binary(group=-1) if self.bits == 1 else StatsQ(self.bits, group=-1)

    def with_codec(self, codec: Codec) -> Self:
        if codec != replace(self, bits=codec.bits).stored:
            raise ConfigError(f"DoReFa({codec.bits}) ends in {replace(self, bits=codec.bits).stored}, not in {codec}")
        return replace(self, bits=codec.bits)

    def start(self, given: WeightStart) -> tuple[TrainableWeight, Tensor]:
        codec, weight = self.stored, given.weight
        if isinstance(codec, Binary):
            return StraightThrough(codec, refit=1).start(given)
        if given.coded is None:
            outermost = 1 - 2.0**-self.bits
            scale = as_stored(weight.abs().amax() / outermost)
            return DoReFaWeight(codec, codec.codebook({"scale": scale}, *weight.shape), scale * outermost), weight
        book = given.coded.codebook
        assert isinstance(book, ScalarCodebook)
        inside = into_cells(book, given.coded.codes, weight)
        reach, largest = inside.abs().amax(), weight.abs().amax().tanh().clamp(_SMALLEST, _LARGEST)
        return DoReFaWeight(codec, book, reach), (inside / reach * largest).atanh()


class DoReFaWeight(TrainableWeight):
    """See :class:`DoReFa`; 2 bits and more."""

    forgets = True

    def __init__(self, codec: Codec, book: ScalarCodebook, reach: Tensor) -> None:
        super().__init__()
        self._codec, self._book = codec, book
        self.register_buffer("scale", book.scale.clone())
        self.register_buffer("reach", reach.clone())

    @property
    def codec(self) -> Codec:
        return self._codec

    def book(self) -> ScalarCodebook:
        """The codebook, on the device it was moved to."""
        scale, book = self.get_buffer("scale"), self._book
        return replace(book, scale=scale, offset=book.offset.to(scale.device), levels=book.levels.to(scale.device))

    def squeezed(self, weight: Tensor) -> Tensor:
        """The weight ``(R, C)`` in ``[-u, u]``, differentiable."""
        squeezed = weight.tanh()
        return self.get_buffer("reach") * squeezed / squeezed.abs().amax().clamp(min=_SMALLEST)

    def forward(self, weight: Tensor) -> Tensor:
        soft, book = self.squeezed(weight), self.book()
        return straight_through(book.values(book.nearest(soft.detach())), soft)

    def coded(self, weight: Tensor) -> CodedWeight:
        with torch.no_grad():
            return CodedWeight(self.book().nearest(self.squeezed(weight)), self.book())
