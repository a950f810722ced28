"""A quantized network as plain torch layers."""

from __future__ import annotations

import copy

from torch import nn

from corank.autograd import recording
from corank.layers import CodedLayer, give_back_float, replace_module
from corank.storage.model_record import ATTRIBUTE

__all__ = ["to_float"]


@recording()
def to_float(model: nn.Module, held: bool = False) -> nn.Module:
    """A copy of a quantized model whose coded layers are plain torch layers with the composed weights.

    Args:
        model: of :func:`corank.quantize` or :func:`corank.load`.
        held: leave weights that a module reads from a layer of their own there, under the name of that layer.
    """
    plain = copy.deepcopy(model)
    for module in list(plain.modules()):
        if isinstance(module, CodedLayer):
            replace_module(plain, module, module.to_float())
    if not held:
        give_back_float(plain)
    plain.__dict__.pop(ATTRIBUTE, None)
    _forget_quantizer(plain)
    return plain


def _forget_quantizer(plain: nn.Module) -> None:
    """What transformers keeps on a network that it loaded quantized: saved, it would say that it still is."""
    plain.__dict__.pop("hf_quantizer", None)
    config = plain.__dict__.get("config")
    if config is not None:
        config.__dict__.pop("quantization_config", None)
