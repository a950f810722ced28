"""One coded layer as continuous numbers that train, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from corank.adapters import CodedLowRank, LowRank, code_factors
from corank.codecs import ScalarCodebook
from corank.coded_weight import CodedWeight
from corank.layers import CodedLayer, InputQuantizer, LayerCode
from corank.refine.refinement import Refinement

__all__ = ["LatentLayer"]


class LatentLayer:
    """The scales, adapter factors and, if codes may move, a latent for each code of one layer.

    Scales train as factors of what they were. A latent starts exactly at its code and is rounded straight through,
    so that the first step sees the coded layer as it is.
    """

    def __init__(self, layer: CodedLayer, rates: Refinement) -> None:
        self._code, self._geometry, self._rates = layer.code(), layer.geometry, rates
        self._book = cast(ScalarCodebook, self._code.weight.codebook)
        columns = self._code.weight.codes.shape[1]
        self._offset = self._book.spread(self._book.offset, columns)
        self._kept = self._book.levels[self._code.weight.codes.long()]
        self.gain = nn.Parameter(torch.ones_like(self._book.scale))
        self.input_gain = None if self._code.inputs is None else nn.Parameter(torch.ones_like(self._code.inputs.step))
        self.latent = nn.Parameter(self._code.weight.codes.float()) if rates.code_rate > 0 else None
        self._sizes, self.factors = _factors(self._code.adapter)

    def trained(self) -> Iterator[tuple[str, Tensor, float]]:
        """Kind, parameter and learning rate of what trains."""
        yield "gain", self.gain, self._rates.scale_rate
        if self.input_gain is not None:
            yield "input_gain", self.input_gain, self._rates.step_rate
        if self.latent is not None:
            yield "latent", self.latent, self._rates.code_rate
        for side, factor in zip(("left", "right"), self.factors, strict=False):
            yield side, factor, self._rates.adapter_rate

    def weight(self) -> Tensor:
        """The weight in the layer's own shape, differentiable in everything that trains."""
        scale = self._book.spread(self._book.scale * self.gain, self._kept.shape[1])
        matrix = scale * (self._levels() - self._offset)
        if self.factors:
            left, right = self._rounded_factors()
            matrix = matrix + (left @ right).flatten(0, 1)
        return self._geometry.from_matrix(matrix)

    def inputs(self) -> InputQuantizer | None:
        """What rounds the layer's inputs, differentiable in its step."""
        inputs = self._code.inputs
        return (
            inputs if inputs is None or self.input_gain is None else replace(inputs, step=inputs.step * self.input_gain)
        )

    def harden(self) -> LayerCode:
        """What ships: whole codes, fp16 scales and steps, coded factors."""
        with torch.no_grad():
            book = replace(self._book, scale=_stored(self._book.scale * self.gain, self._book.scale))
            inputs = self._code.inputs
            if inputs is not None and self.input_gain is not None:
                inputs = replace(inputs, step=_stored(inputs.step * self.input_gain, inputs.step))
            codes = self._code.weight.codes if self.latent is None else self._codes(self.latent).to(torch.uint8)
            adapter = self._code.adapter
            if adapter is not None:
                left, right = (factor * size for factor, size in zip(self.factors, self._sizes, strict=True))
                adapter = code_factors(LowRank(left, right, torch.zeros(left.shape[2])), self._code.adapter_bits)
        return LayerCode(self._code.codec, CodedWeight(codes, book), adapter, self._code.adapter_bits, inputs)

    def _codes(self, latent: Tensor) -> Tensor:
        return latent.detach().round().clamp(0, len(self._book.levels) - 1)

    def _levels(self) -> Tensor:
        """Levels of the codes; a latent's gradient passes straight through the rounding, and stops at the ends."""
        if self.latent is None:
            return self._kept
        step = (self._book.levels[-1] - self._book.levels[0]) / (len(self._book.levels) - 1)
        inside = self.latent.clamp(0, len(self._book.levels) - 1)
        rounded = self._book.levels[self._codes(self.latent).long()]
        return rounded + (inside - inside.detach()) * step

    def _rounded_factors(self) -> tuple[Tensor, Tensor]:
        """Both factors as they will be stored; gradients pass straight through."""
        left, right = (factor * size for factor, size in zip(self.factors, self._sizes, strict=True))
        with torch.no_grad():
            stored = _decoded(code_factors(LowRank(left, right, torch.zeros(left.shape[2])), self._code.adapter_bits))
        return left + (stored[0] - left).detach(), right + (stored[1] - right).detach()


def _stored(scale: Tensor, before: Tensor) -> Tensor:
    """As fp16 holds it; as before where that is no scale."""
    stored = scale.to(torch.float16).float()
    return torch.where(torch.isfinite(stored) & (stored > 0), stored, before)


def _decoded(adapter: CodedLowRank) -> tuple[Tensor, Tensor]:
    """``(G, R, r)`` and ``(G, r, C)``."""
    left = adapter.left.decode().reshape(adapter.groups, adapter.rank, -1).transpose(1, 2)
    return left, adapter.right.decode().reshape(adapter.groups, adapter.rank, -1)


def _factors(adapter: CodedLowRank | None) -> tuple[list[float], list[nn.Parameter]]:
    """The root mean square of each factor, and the factor in units of it."""
    if adapter is None:
        return [], []
    sides = _decoded(adapter)
    sizes = [float(side.square().mean().sqrt().clamp(min=1e-12)) for side in sides]
    return sizes, [nn.Parameter(side / size) for side, size in zip(sides, sizes, strict=True)]
