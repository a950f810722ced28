"""``QuantizeLinear`` and ``DequantizeLinear`` around the nodes of a float graph that have integer kernels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorData, TensorsData
from torch import nn

from corank.export.graph import initializer_index, weight_name, weight_readers
from corank.export.int8_ranges import Range
from corank.export.int8_weights import Int8Weight

__all__ = ["FOLLOWING", "WEIGHTED", "Integers", "fold_transposes", "has_kernel", "integer_graph", "name_nodes"]

WEIGHTED = ("Conv", "Gemm", "MatMul")
FOLLOWING = (
    "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul", "Pad",
    "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
"""Operators with integer kernels, which save a way to float and back behind a layer and are nothing elsewhere."""
_SEVERAL = ("Add", "Concat", "Mul")


@dataclass(frozen=True)
class Integers:
    """What the quantizer is told beside ranges and weights.

    Attributes:
        seven_bits: weights go from -64 to 64.
        keep_relus: nodes that a range from zero on would clip stay, for ranges that reach below zero.
    """

    seven_bits: bool
    keep_relus: bool = False


def name_nodes(graph: GraphProto) -> None:
    """Gives every node a name of its own."""
    for place, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{place}"


def fold_transposes(graph: GraphProto, layers: Collection[str]) -> None:
    """Weights that are read through one ``Transpose`` become transposed: only a constant is quantized as a weight."""
    weights = {weight_name(name) for name in layers}
    for node in [node for node in graph.node if node.op_type == "Transpose" and node.input[0] in weights]:
        name = node.input[0]
        if sum(name in other.input for other in graph.node) > 1:
            continue
        held = graph.initializer[initializer_index(graph, name)]
        held.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(held).T), name))
        for other in graph.node:
            other.input[:] = [name if value == node.output[0] else value for value in other.input]
        graph.node.remove(node)


def has_kernel(graph: GraphProto, name: str, layer: nn.Module) -> bool:
    """Whether a layer is computed in bytes: a convolution or a linear layer whose weight is a constant."""
    if not isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
        return False
    nodes = weight_readers(graph, name)
    constant = {held.name for held in graph.initializer}
    return bool(nodes) and all(node.op_type in WEIGHTED and node.input[1] in constant for node in nodes)


def integer_graph(
    model: ModelProto,
    ranges: Mapping[str, Range],
    weights: Mapping[str, Int8Weight],
    how: Integers,
    kept: Sequence[str],
) -> ModelProto:
    """The graph in integers; ``model`` is used up.

    Args:
        model: in float, of :func:`name_nodes`, with shapes inferred.
        ranges: of the values between nodes.
        weights: of the layers that compute in integers.
        how: what the quantizer is told.
        kept: layers with an integer kernel that stay in float nevertheless.
    """
    outputs = _plain_outputs(model.graph)
    quantized = _quantize(model, ranges, weights, how)
    _leave_outputs(quantized.graph, outputs)
    _hold_floats(quantized.graph, kept)
    return quantized


def _quantize(
    model: ModelProto, ranges: Mapping[str, Range], weights: Mapping[str, Int8Weight], how: Integers
) -> ModelProto:
    overrides: dict[str, list[dict[str, Any]]] = {}
    for name, weight in weights.items():
        axis = _axis(weight_readers(model.graph, name)[0])
        held = model.graph.initializer[initializer_index(model.graph, weight_name(name))]
        values = weight.values.numpy() if axis == 0 else weight.values.numpy().T
        held.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), held.name))
        each = {"zero_point": 0, "quant_type": QuantType.QInt8, **({} if weight.whole else {"axis": axis})}
        overrides[weight_name(name)] = [{"scale": step, **each} for step in weight.steps]
    ends: dict[str, TensorData | tuple[Any, ...]] = {
        value: (np.float32(low), np.float32(high)) for value, (low, high) in ranges.items()
    }
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=how.seven_bits,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ends),
        nodes_to_quantize=_integer_nodes(model.graph, list(weights)),
        nodes_to_exclude=[],
        op_types_to_quantize=[*WEIGHTED, *FOLLOWING],
        extra_options={
            "TensorQuantOverrides": overrides,
            "OpTypesToExcludeOutputQuantization": ["MatMul"],
            "QDQKeepRemovableActivations": how.keep_relus,
        },
    )
    quantizer.quantize_model()
    return quantizer.model.model


def _axis(node: NodeProto) -> int:
    """The axis of output channels in the weight that a node reads."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else 1


def _integer_nodes(graph: GraphProto, layers: Sequence[str]) -> list[str]:
    """Names of the layers' nodes, and of those that read nothing but what integer nodes and constants give.

    A ``MatMul`` gives floats: its readers, in a transformer, are sums of large and small numbers.
    """
    found = {node.name for name in layers for node in weight_readers(graph, name)}
    constant, integer = {held.name for held in graph.initializer}, set[str]()
    for node in graph.node:
        read = set(node.input if node.op_type in _SEVERAL else node.input[:1]) - constant
        if node.op_type in FOLLOWING and read and read <= integer:
            found.add(node.name)
        if node.name in found and node.op_type != "MatMul":
            integer.update(node.output)
    return [node.name for node in graph.node if node.name in found]


def _plain_outputs(graph: GraphProto) -> list[str]:
    """The graph's outputs that can be floats: those of a kernel that gives floats (a convolution's cannot), which need
    no range in place of a ``Relu``, and which no other node reads."""
    writer = {value: node.op_type for node in graph.node for value in node.output}
    read = {value for node in graph.node for value in node.input}
    outputs = [value.name for value in graph.output]
    return [name for name in outputs if name not in read and writer.get(name) not in ("Conv", "Relu", "Clip", None)]


def _leave_outputs(graph: GraphProto, names: Collection[str]) -> None:
    """Takes the rounding from outputs of the graph."""
    writer = {value: node for node in graph.node for value in node.output}
    for name in names:
        last = writer[name]
        if last.op_type != "DequantizeLinear":
            continue
        rounding = writer[last.input[0]]
        source = writer[rounding.input[0]]
        source.output[:] = [name if value == rounding.input[0] else value for value in source.output]
        graph.node.remove(last)
        graph.node.remove(rounding)
    read = {value for node in graph.node for value in node.input}
    for held in [held for held in graph.initializer if held.name not in read]:
        graph.initializer.remove(held)


def _hold_floats(graph: GraphProto, kept: Sequence[str]) -> None:
    """Keeps float layers, and max pools behind them, in float.

    onnxruntime turns whatever stands between two roundings into int8, and moves the rounding of a pool's output before
    the pool, which then runs in int8 but in the layout of float, some fifty times slower. A ``LeakyRelu`` of slope 1,
    the identity, stops both.
    """
    integer = {value for node in graph.node if node.op_type == "DequantizeLinear" for value in node.output}
    coded = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    owned = {node.output[0] for name in kept for node in weight_readers(graph, name)}
    for place, node in reversed(list(enumerate(graph.node))):
        if node.op_type == "MaxPool" and node.input[0] not in integer and node.output[0] in coded:
            value = node.output[0]
            node.output[0] = f"{value}_held"
            graph.node.insert(place + 1, helper.make_node("LeakyRelu", [node.output[0]], [value], alpha=1.0))
        elif node.output[0] in owned and node.input[0] in integer:
            value, held = node.input[0], f"{node.name}_held"
            node.input[0] = held
            graph.node.insert(place, helper.make_node("LeakyRelu", [value], [held], alpha=1.0))
