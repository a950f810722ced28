"""Linear layers that keep inputs before outputs, as transformers' ``Conv1D`` does."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from corank.layers.coded import CodedLayer
from corank.layers.replace import replace_module
from corank.matrix import Geometry, MatrixModule

__all__ = ["CodedTransposedLinear", "TransposedLinear", "as_linear", "is_conv1d", "transpose_linears"]


class TransposedLinear(MatrixModule):
    """``x @ weight + bias``, the weight ``(C, R)``: computes as transformers' ``Conv1D`` does, bit for bit.

    Args:
        layer: of that class; its parameters are kept.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        weight = layer.get_parameter("weight")
        self.nx, self.nf = weight.shape
        self.geometry = Geometry((self.nx, self.nf), transposed=True)
        self.register_parameter("weight", weight)
        self.register_parameter("bias", layer._parameters["bias"])
        self.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:
        """Inputs ``(..., C)`` to ``(..., R)``."""
        flat = input.reshape(-1, self.nx)
        found = flat @ self.weight if self.bias is None else torch.addmm(self.bias, flat, self.weight)
        return found.reshape(*input.shape[:-1], self.nf)

    def extra_repr(self) -> str:
        return f"nx={self.nx}, nf={self.nf}"


class CodedTransposedLinear(CodedLayer, TransposedLinear):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A ``Conv1D`` of transformers with a coded weight."""


def transpose_linears(model: nn.Module, names: Collection[str] | None = None) -> None:
    """Puts a :class:`TransposedLinear` in the place of every ``Conv1D`` of transformers, in place, or of those of these
    names."""
    for name, module in list(model.named_modules()):
        if is_conv1d(module) and (names is None or name in names):
            replace_module(model, module, as_linear(module))


def as_linear(layer: nn.Module) -> nn.Module:
    """The layer, or where it is a ``Conv1D`` of transformers the :class:`TransposedLinear` of its parameters."""
    return TransposedLinear(layer) if is_conv1d(layer) else layer


def is_conv1d(layer: nn.Module) -> bool:
    """Told by its names: transformers need not be installed, nor imported, for a network without it."""
    return type(layer).__name__ == "Conv1D" and type(layer).__module__ == "transformers.pytorch_utils"
