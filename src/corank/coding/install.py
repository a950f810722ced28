"""Coded layers in place of float ones."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from corank.coding.layer import LayerResult
from corank.layers import CodedLayer, PreparedModel, coded_class, give_back_float, replace_module

__all__ = ["coded_module", "install"]


def install(prepared: PreparedModel, results: Mapping[str, LayerResult]) -> None:
    """Puts the coded counterpart of every layer named in place, under all names it goes by; weights that were held in
    layers of their own, and are not coded, become parameters again."""
    for name, result in results.items():
        layer = prepared.targets[name]
        replace_module(prepared.model, layer, coded_module(layer, result))
    give_back_float(prepared.model)


def coded_module(layer: nn.Module, result: LayerResult) -> CodedLayer:
    """The coded counterpart of ``layer`` holding ``result``."""
    code = result.code
    rank = code.adapter.rank if code.adapter else 0
    inputs = code.inputs.bits if code.inputs else None
    module = coded_class(layer, seen_alike=True)(layer, code.codec, rank, code.adapter_bits, inputs)
    module.keep_bias(result.bias is not None).keep_shifts(code.inputs.shifts if code.inputs else 0)
    module.fill(code, result.bias)
    return module
