"""A quantized network whose products of signs are counted, sixty-four at once."""

from __future__ import annotations

import copy

from torch import nn

from corank.autograd import recording
from corank.errors import ModelError
from corank.layers import CodedLayer, is_packable, packed_layer, replace_module
from corank.storage.model_record import ATTRIBUTE

__all__ = ["to_packed"]


@recording()
def to_packed(model: nn.Module) -> nn.Module:
    """A copy of a quantized model for inference on CPUs: layers of 1-bit weights and inputs hold one bit a weight and
    multiply by xor and popcount, in C++ that is built when it is first used; without a compiler by plain PyTorch.

    Products of signs are exact whole numbers; outputs differ from the model's by the rounding of float32 alone. Other
    layers stay as they are, convolutions with padding or groups among them.

    Args:
        model: of :func:`corank.train` or :func:`corank.load`; it is what is saved, not the copy.

    Raises:
        ModelError: for a model without such layers.
    """
    packed = copy.deepcopy(model)
    layers = [one for one in packed.modules() if isinstance(one, CodedLayer) and is_packable(one)]
    if not layers:
        raise ModelError(
            "no layer has weights and inputs of 1 bit, one scale a row and no padding; "
            "corank.train(model, data, 'binary-w1a1') makes them of linear layers"
        )
    for layer in layers:
        replace_module(packed, layer, packed_layer(layer))
    packed.__dict__.pop(ATTRIBUTE, None)
    return packed
