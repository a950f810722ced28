"""Which kind of coded layer a float layer becomes."""

from __future__ import annotations

from torch import nn

from corank.errors import ModelError
from corank.layers.coded import (
    CodedConv1d,
    CodedConv2d,
    CodedConv3d,
    CodedConvTranspose1d,
    CodedConvTranspose2d,
    CodedConvTranspose3d,
    CodedLayer,
    CodedLinear,
)
from corank.layers.held import CodedHeldWeight, HeldWeight
from corank.layers.lookup import CodedEmbedding, CodedEmbeddingBag
from corank.layers.transposed import CodedTransposedLinear, TransposedLinear

__all__ = ["CODED", "base_class", "coded_class"]

CODED: dict[type[nn.Module], type[CodedLayer]] = {
    nn.Linear: CodedLinear,
    nn.Conv1d: CodedConv1d,
    nn.Conv2d: CodedConv2d,
    nn.Conv3d: CodedConv3d,
    nn.ConvTranspose1d: CodedConvTranspose1d,
    nn.ConvTranspose2d: CodedConvTranspose2d,
    nn.ConvTranspose3d: CodedConvTranspose3d,
    TransposedLinear: CodedTransposedLinear,
    nn.Embedding: CodedEmbedding,
    nn.EmbeddingBag: CodedEmbeddingBag,
    HeldWeight: CodedHeldWeight,
}
"""The coded counterpart of each kind of layer."""


def base_class(layer: nn.Module) -> type[nn.Module] | None:
    """The supported kind of layer that ``layer`` is, or a subclass of; None if there is none."""
    return next((kind for kind in CODED if isinstance(layer, kind)), None)


def coded_class(layer: nn.Module, seen_alike: bool = False) -> type[CodedLayer]:
    """The coded counterpart of a float layer.

    Args:
        layer: of a supported kind, or of a subclass that computes as it does.
        seen_alike: a subclass's own ``forward()`` was seen to give what the supported kind gives.

    Raises:
        ModelError: for a layer that has none, saying why.
    """
    own, kind = type(layer), base_class(layer)
    if kind is None:
        raise ModelError(f"{own.__name__} is not a kind of layer that corank codes")
    if isinstance(layer, CodedLayer):
        raise ModelError(f"{own.__name__} is coded already")
    if (own.forward is not kind.forward and not seen_alike) or _convolves_otherwise(own, kind):
        raise ModelError(f"{own.__name__} has a forward() of its own, which computes otherwise")
    if "weight" not in layer._parameters:
        raise ModelError(f"{own.__name__} computes its weight (a parametrization); remove it first")
    return CODED[kind]


def _convolves_otherwise(own: type, kind: type) -> bool:
    return issubclass(kind, nn.modules.conv._ConvNd) and (
        "_conv_forward" in kind.__dict__ and own._conv_forward is not kind._conv_forward
    )
