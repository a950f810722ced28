"""Norms that stay apart while a network trains: signs turned before, scales taken out of codes, put back at the end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from corank.codecs import Codebook, Codec, RowLevels, ScalarCodebook
from corank.codecs.fitted import FittedLevels
from corank.matrix import Geometry

__all__ = ["NormAfter", "scaled_rows", "takes_row_scales"]

_SMALLEST_GAIN = 1e-6


def takes_row_scales(codec: Codec) -> bool:
    """Whether a factor for each row can be part of the codec's scales, or of a row's own levels, as a norm's is when it
    is folded."""
    if isinstance(codec, FittedLevels) and codec.per == "row":
        return True
    spec = codec.stored(2, 3).get("scale")
    return spec is not None and spec.scale and spec.count % 2 == 0


def scaled_rows(book: Codebook, factor: Tensor) -> Codebook:
    """The codebook of values times ``factor`` ``(R,)``, for a codec that :func:`takes_row_scales`."""
    if isinstance(book, RowLevels):
        return replace(book, levels=book.levels * factor[:, None].to(book.levels))
    found = cast(ScalarCodebook, book)
    return replace(found, scale=found.scale * factor[:, None].to(found.scale))


@dataclass(frozen=True)
class NormAfter:
    """A batch norm that alone reads a layer's output, so that it can be folded into it.

    Attributes:
        name: of the norm.
        norm: the module, in the network that trains.
        layer: the layer before it.
    """

    name: str
    norm: nn.Module
    layer: nn.Module

    @property
    def gain(self) -> Tensor:
        """``(R,)``: what the norm multiplies each output channel by, in evaluation mode."""
        variance = self.norm.get_buffer("running_var").float() + float(cast(float, self.norm.eps))
        weight = self.norm._parameters.get("weight")
        return variance.rsqrt() if weight is None else variance.rsqrt() * weight.detach().float()

    @property
    def offset(self) -> Tensor:
        """``(R,)``: what it then adds, to the outputs of a layer without a bias."""
        mean, bias = self.norm.get_buffer("running_mean").float(), self.norm._parameters.get("bias")
        own = self.layer._parameters.get("bias")
        before = mean if own is None else mean - own.detach().float()
        return -before * self.gain if bias is None else bias.detach().float() - before * self.gain

    @torch.no_grad()
    def turn(self) -> None:
        """Makes gains positive: rows of a negative one are turned about, which changes no output.

        Codes whose values do not mirror about zero could not take a negative scale when the norm is folded.
        """
        weight = self.norm._parameters.get("weight")
        if weight is None or not bool((weight < 0).any()):
            return
        sign = torch.where(weight < 0, -1.0, torch.ones_like(weight))
        geometry = Geometry.of(self.layer)
        own = self.layer.get_parameter("weight")
        groups, rows, _ = geometry.matrix_shape
        own.copy_(geometry.from_matrix(geometry.to_matrix(own) * sign.reshape(groups, rows, 1).to(own)))
        bias = self.layer._parameters.get("bias")
        if bias is not None:
            bias.mul_(sign)
        self.norm.get_buffer("running_mean").mul_(sign)
        weight.mul_(sign)

    @torch.no_grad()
    def keep_positive(self) -> None:
        """After a step: a gain that came to zero stays just above it."""
        weight = self.norm._parameters.get("weight")
        if weight is not None:
            weight.clamp_(min=_SMALLEST_GAIN)

    @torch.no_grad()
    def take_bias(self, difference: Tensor) -> None:
        """Adds ``(R,)`` to what the norm adds, where it has a bias to hold it."""
        bias = self.norm._parameters.get("bias")
        if bias is not None:
            bias.add_(difference.to(bias))
