"""A quantized network as plain torch layers."""

from __future__ import annotations

import copy

from torch import nn

from corank.autograd import recording
from corank.layers import CodedLayer, replace_module
from corank.storage.model_record import ATTRIBUTE

__all__ = ["to_float"]


@recording()
def to_float(model: nn.Module) -> nn.Module:
    """A copy of a quantized model whose coded layers are plain torch layers with the composed weights."""
    plain = copy.deepcopy(model)
    for module in list(plain.modules()):
        if isinstance(module, CodedLayer):
            replace_module(plain, module, module.to_float())
    plain.__dict__.pop(ATTRIBUTE, None)
    return plain
