"""What of a coded layer trains for a task: new low-rank factors beside its codes, or a new weight in its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from corank.adapters import CodedLowRank
from corank.adapters.factor_codes import factor_codec
from corank.codecs import Codec
from corank.coded_weight import CodedWeight
from corank.layers import CodedLayer, CodedLayerState, InputRounder
from corank.training.weights import StraightThrough, WeightStart
from corank.training.weights.base import straight_through

__all__ = ["TaskFactors", "TaskWeight"]


class TaskFactors:
    """``W + left^T right`` of a coded layer: ``W`` stays as it is, ``left`` starts at zero, so that the first step sees
    the layer as it was, bit for bit (LoRA, arXiv 2106.09685, with CoRa's factors, arXiv 2408.00923).

    Both factors are in units of the layer's own weights, so that one rate suits all layers, and are rounded straight
    through as they will be stored.

    Args:
        layer: not changed.
        rank: of the factors, for each channel group.
        bits: of their codes.
        rate: learning rate, in those units.
        seed: draws ``right``.
    """

    def __init__(self, layer: CodedLayer, rank: int, bits: int, rate: float, seed: int) -> None:
        self._code, self._geometry, self._rate = layer.code(), layer.geometry, rate
        groups, rows, columns = layer.geometry.matrix_shape
        self._groups, self._codec = groups, factor_codec(bits)
        self._weight = self._code.compose()
        drawn = torch.randn(
            groups * rank, columns, dtype=torch.float32, generator=torch.Generator().manual_seed(seed)
        ).to(self._weight.device)
        # the product of a left of ones and the drawn right is then of the weights' own size
        self._unit = float((self._weight.square().mean().sqrt() / rank**0.5).sqrt().clamp(min=1e-6))
        self.left = nn.Parameter(drawn.new_zeros(groups * rank, rows))
        self.right = nn.Parameter(drawn)

    def trained(self) -> Iterator[tuple[str, Tensor, float]]:
        yield "left", self.left, self._rate
        yield "right", self.right, self._rate

    def weight(self) -> Tensor:
        left, right = (straight_through(self._coded(side).decode(), side * self._unit) for side in self._sides())
        left, right = left.unflatten(0, (self._groups, -1)), right.unflatten(0, (self._groups, -1))
        return self._geometry.from_matrix(self._weight + (left.transpose(1, 2) @ right).flatten(0, 1))

    def inputs(self) -> InputRounder | None:
        return self._code.inputs

    def factors(self) -> CodedLowRank | None:
        """What ships; None where ``left`` has stayed at zero, so that nothing is added."""
        if not bool(self.left.any()):
            return None
        left, right = (self._coded(side) for side in self._sides())
        return CodedLowRank(left, right, self._groups)

    def harden(self) -> CodedLayerState:
        found = self.factors()
        return self._code if found is None else replace(self._code, adapter=found.behind(self._code.adapter))

    def _sides(self) -> tuple[Tensor, Tensor]:
        return self.left, self.right

    def _coded(self, side: Tensor) -> CodedWeight:
        value = side.detach() * self._unit
        book = self._codec.fit(value)
        return CodedWeight(book.nearest(value), book)


class TaskWeight:
    """A linear layer whose whole weight trains, as codes of its own.

    Args:
        layer: says how inputs are rounded.
        weight: ``(K, C)`` float32: the start.
        codec: of the codes.
        rate: learning rate.
    """

    def __init__(self, layer: CodedLayer, weight: Tensor, codec: Codec, rate: float) -> None:
        self._geometry, self._rate, self._inputs = layer.geometry, rate, layer.input_quantizer()
        self._way, start = StraightThrough(codec, refit=1).start(WeightStart(weight))
        self._way.to(weight.device)
        self.latent = nn.Parameter(start.clone())

    def trained(self) -> Iterator[tuple[str, Tensor, float]]:
        yield "weight", self.latent, self._rate

    def weight(self) -> Tensor:
        return self._geometry.from_matrix(self._way(self.latent))

    def inputs(self) -> InputRounder | None:
        return self._inputs

    def coded(self) -> CodedWeight:
        """What ships."""
        return self._way.coded(self.latent)

    def harden(self) -> CodedLayerState:
        assert self._way.codec is not None
        return CodedLayerState(self._way.codec, self.coded(), None, 8, self._inputs)
