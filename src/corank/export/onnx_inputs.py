"""Layers that round their inputs, as ``QuantizeLinear`` and ``DequantizeLinear`` before their nodes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import GraphProto, NodeProto, helper, numpy_helper

from corank.export.graph import weight_readers
from corank.layers import CodedLayer
from corank.layers.activation import InputQuantizer

__all__ = ["round_inputs"]


def round_inputs(graph: GraphProto, layers: Mapping[str, CodedLayer]) -> None:
    """Rounds what each layer reads as the layer does: 8-bit codes, clipped to fewer where it has fewer.

    A layer whose padding repeats its inputs is rounded after the padding, which gives the same numbers. Layers that
    round one value alike share the nodes.

    Args:
        graph: of :func:`corank.export.graph.float_graph`; changed.
        layers: name to layer; those with inputs in float are passed over.

    Raises:
        ModelError: where a layer's node is of an unknown kind.
    """
    wanted: dict[str, InputQuantizer] = {}  # by the output of the node that reads
    for name, layer in layers.items():
        rounding = layer.input_quantizer()
        if rounding is not None:
            wanted |= {node.output[0]: rounding for node in weight_readers(graph, name)}
    made: dict[tuple[str, float, int, int], str] = {}
    ordered: list[NodeProto] = []
    for node in list(graph.node):
        rounding = wanted.get(node.output[0])
        if rounding is not None:
            key = (node.input[0], float(rounding.step), rounding.offset, rounding.bits)
            if key not in made:
                made[key] = _rounded(graph, ordered, node.input[0], f"{node.input[0]}.rounded_{len(made)}", rounding)
            node.input[0] = made[key]
        ordered.append(node)
    del graph.node[:]
    graph.node.extend(ordered)


def _rounded(graph: GraphProto, nodes: list[NodeProto], value: str, name: str, rounding: InputQuantizer) -> str:
    step = np.float32(float(rounding.step))
    low, high = -rounding.offset, 2**rounding.bits - 1 - rounding.offset
    constants = {"step": step, "zero": np.uint8(rounding.offset), "low": low * step, "high": high * step}
    if rounding.bits == 8:  # what uint8 holds is the range
        del constants["low"], constants["high"]
    names = {kind: f"{name}.{kind}" for kind in constants}
    for kind, held in names.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(constants[kind]), held))
    if "low" in names:
        nodes.append(helper.make_node("Clip", [value, names["low"], names["high"]], [f"{name}.clipped"]))
        value = f"{name}.clipped"
    scale = [names["step"], names["zero"]]
    nodes.append(helper.make_node("QuantizeLinear", [value, *scale], [f"{name}.codes"]))
    nodes.append(helper.make_node("DequantizeLinear", [f"{name}.codes", *scale], [name]))
    return name
