"""Weights whose sign and exponent are signs of latents: what DenseShift and S3 share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from corank.codecs import Codec, ScalarCodebook
from corank.codecs.scalar import LOWEST_EXPONENT
from corank.codecs.scaled import ScaledLevels
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError
from corank.training.weights.base import TrainableWeight, WeightStart, straight_through

__all__ = ["ShiftLatentsWeight", "bit", "book_of", "drawn", "fresh_book", "octaves", "sign"]

_LARGEST_EXPONENT = 15  # of an fp16
_MARGIN = 0.45  # octaves that a start may be off the middle of its code's cell, half an octave wide to each side


class ShiftLatentsWeight(TrainableWeight):
    """Latents ``(R, C)``, or some of them stacked, give codes; no float weight trains behind them."""

    trains_weight = False
    forgets = True

    def __init__(self, codec: Codec, book: ScalarCodebook, latents: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._codec, self._book = codec, book
        self.register_buffer("scale", book.scale.clone())
        for name, latent in latents.items():
            self.register_parameter(name, nn.Parameter(latent.contiguous()))

    @property
    def codec(self) -> Codec:
        return self._codec

    @abstractmethod
    def parts(self) -> tuple[Tensor, Tensor]:
        """Codes ``(R, C)``, and what is differentiated in the place of their levels, with a graph."""

    def book(self) -> ScalarCodebook:
        """The codebook, on the latents' device."""
        scale, book = self.get_buffer("scale"), self._book
        return replace(book, scale=scale, offset=book.offset.to(scale.device), levels=book.levels.to(scale.device))

    def forward(self, weight: Tensor) -> Tensor:
        book = self.book()
        codes, soft = self.parts()
        return straight_through(book.values(codes), book.spread(book.scale, weight.shape[1]) * soft)

    def coded(self, weight: Tensor) -> CodedWeight:
        with torch.no_grad():
            return CodedWeight(self.parts()[0].to(torch.uint8), self.book())


def bit(latent: Tensor) -> Tensor:
    """1 where a latent is at least 0, else 0; backward the identity, nowhere clipped."""
    return straight_through((latent >= 0).to(latent.dtype), latent)


def sign(latent: Tensor) -> Tensor:
    """+1 where a latent is at least 0, else -1; backward the identity, nowhere clipped."""
    return straight_through((latent >= 0).to(latent.dtype) * 2 - 1, latent)


def drawn(shapes: Mapping[str, tuple[int, ...]], deviation: float, given: WeightStart) -> dict[str, Tensor]:
    """Latents from a normal distribution about zero, the same on every device."""
    source = torch.Generator().manual_seed(given.seed)
    return {
        name: (deviation * torch.randn(shape, generator=source, dtype=torch.float32)).to(given.weight.device)
        for name, shape in shapes.items()
    }


def fresh_book(codec: ScaledLevels, weight: Tensor, size: float) -> ScalarCodebook:
    """The codebook whose power of two brings levels of root mean square ``size`` closest to the weight's own."""
    exponent = (weight.square().mean().sqrt() / size).log2().round().clamp(LOWEST_EXPONENT, _LARGEST_EXPONENT)
    count = codec.stored(*weight.shape)["exponent"].count
    kept = (exponent - LOWEST_EXPONENT).to(torch.uint8).expand(count)
    return codec.codebook({"exponent": kept}, *weight.shape)


def book_of(codec: ScaledLevels, given: WeightStart) -> tuple[ScalarCodebook, Tensor]:
    """Codebook and codes ``(R, C)`` as given, or those closest to the float weight."""
    if given.coded is None:
        book = codec.fit(given.weight)
        return book, book.nearest(given.weight)
    book = given.coded.codebook
    if not isinstance(book, ScalarCodebook) or not torch.equal(book.levels, codec.levels().to(book.levels.device)):
        raise ConfigError(f"the codes to start from are not of {codec}, which is what this way of training ends in")
    return book, given.coded.codes


def octaves(book: ScalarCodebook, shift: Tensor, weight: Tensor) -> Tensor:
    """``log2`` of the weight's magnitude in units of the smallest level but zero, inside the cells of ``shift``."""
    smallest = book.spread(book.scale, weight.shape[1]) * book.levels[book.levels > 0].min()
    place = (weight.abs() / smallest).log2()
    return place.clamp(shift - _MARGIN, shift + _MARGIN)
