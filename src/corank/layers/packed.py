"""Layers of signs alone, weights and inputs, for inference: their products are counted (see :mod:`corank.kernels`)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.kernels import PackedSigns, pack_signs, sign_linear
from corank.layers.binary_inputs import BinaryInputs
from corank.layers.coded import CodedConv2d, CodedLayer, CodedLinear

__all__ = ["PackedConv2d", "PackedLinear", "is_packable", "packed_layer"]


class PackedLinear(nn.Module):
    """What a ``CodedLinear`` of 1-bit weights and inputs computes, by xor and popcount; without gradients.

    The sum over a row is a whole number, exactly; times scale and step, plus the bias, it is rounded twice in float32,
    where the coded layer rounds each term of the sum.

    Args:
        layer: that :func:`is_packable`.
    """

    words: Tensor
    factor: Tensor
    bias: Tensor | None
    shift: Tensor | None

    def __init__(self, layer: CodedLayer) -> None:
        super().__init__()
        inputs = cast(BinaryInputs, layer.input_quantizer())
        weight = layer.geometry.to_matrix(layer.weight.detach().float()).flatten(0, 1)
        packed = pack_signs(weight >= 0)
        self.rows, self.columns = packed.rows, packed.columns
        self.register_buffer("words", packed.words)
        self.register_buffer("factor", (weight[:, 0].abs() * inputs.step).contiguous())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().float().clone())
        self.register_buffer("shift", self._shift_of(layer, inputs))
        self.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:
        """Inputs ``(..., C)`` to ``(..., R)``, in their dtype."""
        if input.dim() == 2:
            return self._counted(input)
        return self._counted(input.reshape(-1, self.columns)).reshape(*input.shape[:-1], self.rows)

    def extra_repr(self) -> str:
        return f"rows={self.rows}, columns={self.columns}, bits=1, inputs=1"

    def _counted(self, rows: Tensor) -> Tensor:
        # Of another dtype only where the network was cast.
        factor, bias = self.factor.float(), None if self.bias is None else self.bias.float()
        found = sign_linear(rows, PackedSigns(self.words, self.rows, self.columns), factor, bias, self.shift)
        return found if rows.dtype == torch.float32 else found.to(rows.dtype)

    def _shift_of(self, layer: CodedLayer, inputs: BinaryInputs) -> Tensor | None:
        return None if inputs.shift is None else inputs.shift.reshape(-1).clone()


class PackedConv2d(PackedLinear):
    """The same of a ``CodedConv2d`` without groups and padding, whose zeros would be no signs."""

    def __init__(self, layer: CodedConv2d) -> None:
        super().__init__(layer)
        self._kernel, self._stride, self._dilation = layer.kernel_size, layer.stride, layer.dilation

    def forward(self, input: Tensor) -> Tensor:
        """Inputs ``(N, C, H, W)``."""
        sizes = zip(input.shape[2:], self._kernel, self._stride, self._dilation, strict=True)
        height, width = ((size - far * (side - 1) - 1) // step + 1 for size, side, step, far in sizes)
        patches = F.unfold(input, self._kernel, self._dilation, 0, self._stride).transpose(1, 2)
        found = self._counted(patches.flatten(0, 1)).unflatten(0, (len(input), -1))
        return found.transpose(1, 2).unflatten(2, (height, width))

    def _shift_of(self, layer: CodedLayer, inputs: BinaryInputs) -> Tensor | None:
        shift = super()._shift_of(layer, inputs)
        if shift is None or shift.numel() == 1:
            return shift
        return shift.repeat_interleave(layer.geometry.matrix_shape[2] // layer.geometry.channels)


def is_packable(layer: nn.Module) -> bool:
    """Whether each row of a coded layer's weight is plus or minus one number, its inputs are signs, and nothing that is
    no sign joins them: a ``CodedLinear``, or a ``CodedConv2d`` of one group without padding."""
    if not isinstance(layer, (CodedLinear, CodedConv2d)) or layer.inputs != 1 or layer.codec.bits != 1:
        return False
    geometry = layer.geometry
    if geometry.groups != 1 or any(side for sides in geometry.padding for side in sides):
        return False
    sizes = geometry.to_matrix(layer.weight.detach()).abs()
    return bool((sizes == sizes[..., :1]).all())


@torch.no_grad()
def packed_layer(layer: CodedLayer) -> PackedLinear:
    """The packed form of a layer that :func:`is_packable`."""
    return PackedConv2d(layer) if isinstance(layer, CodedConv2d) else PackedLinear(layer)
