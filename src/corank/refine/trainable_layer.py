"""One coded layer as continuous numbers that train, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from corank.adapters import CodedLowRank, LowRank, code_factors
from corank.codecs import Codebook
from corank.coded_weight import CodedWeight
from corank.layers import CodedLayer, CodedLayerState, InputRounder
from corank.refine.refinement import Refinement

__all__ = ["TrainableLayer"]


class TrainableLayer:
    """What of a layer trains: scales, stored levels, adapter factors and, if codes may move, a latent for each code.

    Scales and levels train as factors of what they were. A latent starts exactly at its code and is rounded straight
    through, so that the first step sees the coded layer as it is.
    """

    def __init__(self, layer: CodedLayer, rates: Refinement) -> None:
        self._code, self._geometry, self._rates = layer.code(), layer.geometry, rates
        book = self._code.weight.codebook
        self._shape = (self._code.weight.codes.shape[0], self._code.weight.codes.shape[1])
        self._top = book.size - 1
        # Float32 while training: steps of the optimizer are mostly smaller than fp16 tells apart.
        self._tensors = {name: t.float() if t.is_floating_point() else t for name, t in book.tensors().items()}
        kept = {name: tensor for name, tensor in self._tensors.items() if tensor.is_floating_point()}
        # Factors about one: scales differ by magnitudes from layer to layer, and one rate then moves all alike.
        self.gains = {name: nn.Parameter(torch.ones_like(tensor)) for name, tensor in kept.items()}
        self.input_gain = None if self._code.inputs is None else nn.Parameter(torch.ones_like(self._code.inputs.step))
        # In units of codes for the same reason: half a unit turns a code, whatever the scale.
        self.latent = nn.Parameter(self._code.weight.codes.float()) if rates.code_rate > 0 else None
        self._sizes, self.factors = _factors(self._code.adapter)

    def trained(self) -> Iterator[tuple[str, Tensor, float]]:
        """Kind, parameter and learning rate of what trains."""
        for name, gain in self.gains.items():
            yield f"gain_{name}", gain, self._rates.scale_rate
        if self.input_gain is not None:
            yield "input_gain", self.input_gain, self._rates.step_rate
        if self.latent is not None:
            yield "latent", self.latent, self._rates.code_rate
        for side, factor in zip(("left", "right"), self.factors, strict=False):
            yield side, factor, self._rates.adapter_rate

    def weight(self) -> Tensor:
        """The weight in the layer's own shape, differentiable in everything that trains."""
        matrix = self._values(self._book({name: self._tensors[name] * gain for name, gain in self.gains.items()}))
        if self.factors:
            left, right = self._rounded_factors()
            # ``(G, R, C)`` to ``(G * R, C)``, the shape of the codes.
            matrix = matrix + (left @ right).flatten(0, 1)
        return self._geometry.from_matrix(matrix)

    def inputs(self) -> InputRounder | None:
        """What rounds the layer's inputs, differentiable in its step."""
        inputs = self._code.inputs
        return (
            inputs if inputs is None or self.input_gain is None else replace(inputs, step=inputs.step * self.input_gain)
        )

    def harden(self) -> CodedLayerState:
        """What ships: whole codes, fp16 scales and steps, coded factors."""
        with torch.no_grad():
            gained = {name: (self._tensors[name] * gain, self._tensors[name]) for name, gain in self.gains.items()}
            book = self._book({name: _stored(now, before) for name, (now, before) in gained.items()})
            inputs = self._code.inputs
            if inputs is not None and self.input_gain is not None:
                inputs = replace(inputs, step=_stored(inputs.step * self.input_gain, inputs.step))
            codes = self._code.weight.codes if self.latent is None else self._codes(self.latent).to(torch.uint8)
            adapter = self._code.adapter
            if adapter is not None:
                left, right = (factor * size for factor, size in zip(self.factors, self._sizes, strict=True))
                # Energies only say where to cut an adapter short, which is done before: none are given.
                adapter = code_factors(LowRank(left, right, left.new_zeros(left.shape[2])), self._code.adapter_bits)
        return CodedLayerState(self._code.codec, CodedWeight(codes, book), adapter, self._code.adapter_bits, inputs)

    @property
    def device(self) -> torch.device:
        """Where the layer is."""
        return self._code.weight.codes.device

    def _book(self, trained: Mapping[str, Tensor]) -> Codebook:
        return self._code.codec.codebook({**self._tensors, **trained}, *self._shape)

    def _codes(self, latent: Tensor) -> Tensor:
        return latent.detach().round().clamp(0, self._top)

    def _values(self, book: Codebook) -> Tensor:
        """Values of the codes; a latent's gradient is the local slope of the values, and stops at the ends."""
        if self.latent is None:
            return book.values(self._code.weight.codes)
        codes = self._codes(self.latent)
        with torch.no_grad():
            below, above = (codes - 1).clamp(min=0), (codes + 1).clamp(max=self._top)
            # Over both neighbours, and over one at the ends: levels need not be equally spaced.
            slope = (book.values(above) - book.values(below)) / (above - below).clamp(min=1)
        # Past the ends the clamp has no gradient, so a latent does not run on where its code cannot follow.
        inside = self.latent.clamp(0, self._top)
        # The second term is zero forward; backward it hands the latent the slope, where rounding would give none.
        return book.values(codes) + (inside - inside.detach()) * slope

    def _rounded_factors(self) -> tuple[Tensor, Tensor]:
        """Both factors as they will be stored; gradients pass straight through."""
        left, right = (factor * size for factor, size in zip(self.factors, self._sizes, strict=True))
        with torch.no_grad():
            stored = _decoded(
                code_factors(LowRank(left, right, left.new_zeros(left.shape[2])), self._code.adapter_bits)
            )
        # The stored values forward, the identity backward.
        return left + (stored[0] - left).detach(), right + (stored[1] - right).detach()


def _stored(scale: Tensor, before: Tensor) -> Tensor:
    """As fp16 holds it; as before where that is not finite or of another sign."""
    stored = scale.to(torch.float16).float()
    # A scale of zero or of another sign, or one past fp16, would undo a whole row; its old value is a safe one.
    return torch.where(torch.isfinite(stored) & (stored * before > 0), stored, before)


def _decoded(adapter: CodedLowRank) -> tuple[Tensor, Tensor]:
    """``(G, R, r)`` and ``(G, r, C)``."""
    left = adapter.left.decode().reshape(adapter.groups, adapter.rank, -1).transpose(1, 2)
    return left, adapter.right.decode().reshape(adapter.groups, adapter.rank, -1)


def _factors(adapter: CodedLowRank | None) -> tuple[list[float], list[nn.Parameter]]:
    """The root mean square of each factor, and the factor in units of it."""
    if adapter is None:
        return [], []
    sides = _decoded(adapter)
    # As scales are: in units of its size each factor moves alike at one rate.
    sizes = [float(side.square().mean().sqrt().clamp(min=1e-12)) for side in sides]
    return sizes, [nn.Parameter(side / size) for side, size in zip(sides, sizes, strict=True)]
