"""Codes that stay, and scales that train: what a refinement moves of a weight."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from corank.codecs import Codebook, Codec, Uniform
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError
from corank.training.weights.base import TrainableWeight, WeightStart, WeightTraining
from corank.training.weights.straight_through import exact_tensors

__all__ = ["Scales", "ScalesWeight"]


@dataclass(frozen=True)
class Scales(WeightTraining):
    """Every code stays as it was rounded; scales, offsets and stored levels train, whatever the codec has of them.

    Each is its start times ``exp`` of what trains: scales differ by magnitudes from layer to layer, and one rate then
    moves all alike; none changes its sign.

    Args:
        codec: that stores numbers of fp16.
    """

    codec: Codec = field(default_factory=lambda: Uniform(2, range="mse", half=True))

    @property
    def stored(self) -> Codec:
        return self.codec

    def start(self, given: WeightStart) -> tuple[TrainableWeight, Tensor]:
        if given.coded is None:
            book = self.codec.fit(given.weight)
            codes = book.nearest(given.weight)
        else:
            book, codes = given.coded.codebook, given.coded.codes
        if not any(tensor.is_floating_point() for tensor in book.tensors().values()):
            raise ConfigError(
                f"{type(self.codec).__name__} stores no scales that could train beside its codes; "
                f"StraightThrough({type(self.codec).__name__}(...)) trains the codes"
            )
        return ScalesWeight(self.codec, book, codes), book.values(codes)


class ScalesWeight(TrainableWeight):
    """See :class:`Scales`; the layer's float weight is not looked at."""

    trains_weight = False

    def __init__(self, codec: Codec, book: Codebook, codes: Tensor) -> None:
        super().__init__()
        self._codec = codec
        self.register_buffer("codes", codes.clone())
        for name, tensor in exact_tensors(book).items():
            self.register_buffer(f"book_{name}", tensor)
            if tensor.is_floating_point():
                self.register_parameter(f"growth_{name}", nn.Parameter(torch.zeros_like(tensor)))

    @property
    def codec(self) -> Codec:
        return self._codec

    def book(self) -> Codebook:
        """The codebook as it is now, differentiable in all that trains."""
        kept = {name.removeprefix("book_"): one for name, one in self.named_buffers() if name.startswith("book_")}
        for name, growth in self.named_parameters():
            kept[name.removeprefix("growth_")] = kept[name.removeprefix("growth_")] * growth.exp()
        return self.codec.codebook(kept, *self.get_buffer("codes").shape)

    def forward(self, weight: Tensor) -> Tensor:
        return self.book().values(self.get_buffer("codes"))

    def coded(self, weight: Tensor) -> CodedWeight:
        with torch.no_grad():
            return CodedWeight(self.get_buffer("codes"), self.book())
