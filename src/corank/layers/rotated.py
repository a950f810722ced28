"""A linear layer between rotations: it keeps its weight in their basis, and computes what it did."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from corank.errors import ModelError
from corank.layers.hadamard import Rotation, factors_of
from corank.layers.transposed import TransposedLinear, as_linear, is_conv1d
from corank.matrix import Geometry

__all__ = ["RotatedLayer", "rotate_columns", "rotate_rows", "takes_a_rotation"]


class RotatedLayer(nn.Module):
    """``layer(x Q)``, or ``layer(x Q) P^T``, where the layer keeps ``P^T W Q``: what ``W`` gives of ``x``.

    The rotations are of the layer's own widths, and have no parameters; the layer goes by ``NAME.layer``.

    Args:
        layer: that :func:`takes_a_rotation`; its weight is taken to be rotated already.
        seed: of the signs.
        outputs: whether outputs are rotated as well.

    Raises:
        ModelError: for another layer.
    """

    def __init__(self, layer: nn.Module, seed: int, outputs: bool = False) -> None:
        super().__init__()
        if not takes_a_rotation(layer):
            raise ModelError(
                f"{layer} takes no rotation: a Linear is needed whose width has a factor of two, or is at most 512"
            )
        layer, weight = as_linear(layer), layer.get_parameter("weight")
        _, rows, columns = Geometry.of(layer).matrix_shape
        if outputs and not factors_of(rows):
            raise ModelError(f"{layer} has {rows} outputs, which no rotation mixes")
        self.rotation = Rotation(columns, seed, weight)
        self.layer = layer
        self.output_rotation = Rotation(rows, seed, weight) if outputs else None
        self.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:
        """As the layer is called."""
        found = self.layer(self.rotation(input))
        return found if self.output_rotation is None else self.output_rotation.back(found)

    @property
    def weight(self) -> Tensor:
        """The weight that all of this together computes with, in the layer's own shape."""
        geometry = Geometry.of(self.layer)
        matrix = self.rotation.back(geometry.to_matrix(self.layer.weight))  # pyright: ignore[reportArgumentType]
        if self.output_rotation is not None:
            matrix = self.output_rotation.back(matrix.mT).mT
        return geometry.from_matrix(matrix)

    def rotate_weight(self) -> None:
        """Brings the layer's weight and bias, so far in the original basis, into that of the rotations, in place."""
        rotate_columns(self.layer, self.rotation)
        if self.output_rotation is not None:
            rotate_rows(self.layer, self.output_rotation)


def takes_a_rotation(layer: nn.Module) -> bool:
    """Whether it is a plain linear layer of a width that a rotation mixes."""
    known = type(layer) in (nn.Linear, TransposedLinear) or is_conv1d(layer)
    return known and bool(factors_of(Geometry.of(as_linear(layer)).matrix_shape[2]))


def rotate_columns(layer: nn.Module, rotation: Rotation) -> None:
    """``W Q``, in place: of a layer whose inputs ``(..., C)`` are rotated, or parts of them as wide as the rotation."""
    weight, geometry = layer.get_parameter("weight"), Geometry.of(layer)
    _set(weight, geometry.from_matrix(_wide(rotation, geometry.to_matrix(weight.detach().double()))))


def rotate_rows(layer: nn.Module, rotation: Rotation) -> None:
    """``Q^T W`` and the bias likewise, in place: of a layer whose outputs are rotated, or parts of them."""
    weight, geometry = layer.get_parameter("weight"), Geometry.of(layer)
    matrix = geometry.to_matrix(weight.detach().double())
    _set(weight, geometry.from_matrix(_wide(rotation, matrix.mT.contiguous()).mT))
    bias = layer._parameters.get("bias")
    if bias is not None:
        _set(bias, _wide(rotation, bias.detach().double()))


def _wide(rotation: Rotation, values: Tensor) -> Tensor:
    """Values ``(..., k * C)`` float64, each part of the rotation's width rotated."""
    exact = Rotation(rotation.size, rotation.seed, values)
    return exact(values.unflatten(-1, (-1, rotation.size))).flatten(-2)


def _set(parameter: nn.Parameter, value: Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(value)
