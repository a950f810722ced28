"""The merged float network as an ONNX graph that onnxruntime runs in int8: ``QuantizeLinear`` and ``DequantizeLinear``
around every node that has an integer kernel."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorData, TensorsData
from torch import Tensor, nn

from corank.calibration import Samples
from corank.export.check import Arrays
from corank.export.example import named_inputs
from corank.export.graph import coded_layers, float_graph, initializer_index, weight_name, weight_readers
from corank.export.int8_choice import harmed_layers
from corank.export.int8_errors import Int8Layer, LayerError, layer_errors
from corank.export.int8_ranges import Range, extremes, of_layers, shared
from corank.export.int8_settings import Int8
from corank.export.int8_weights import Int8Weight, int8_weights
from corank.layers import CodedLayer

__all__ = ["Int8Graph", "int8_graph"]

_WEIGHTED = ("Conv", "Gemm", "MatMul")
_FOLLOWING = (
    "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul", "Pad",
    "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
"""Operators with integer kernels, which save a way to float and back behind a layer and are nothing elsewhere."""
_SEVERAL = ("Add", "Concat", "Mul")


@dataclass(frozen=True)
class Int8Graph:
    """A graph, and what became of the layers.

    Attributes:
        model: opset 21, an open batch.
        float_bytes: of the same graph in float.
        kept: layers whose arithmetic stays in float, in the order of the modules.
        errors: what int8 does to each layer that has an integer kernel, by itself.
    """

    model: ModelProto
    float_bytes: int
    kept: tuple[str, ...]
    errors: Mapping[str, LayerError]


def int8_graph(model: nn.Module, samples: Samples, settings: Int8, kept: Sequence[str]) -> Int8Graph:
    """Calibrates and writes the graph.

    Weights are int8 with a step for each output channel, symmetric; see :func:`row_steps
    <corank.export.int8_weights.row_steps>`. Values between nodes are uint8 with one step: that of the layer they feed
    where the plan rounds its inputs, else from their least to their largest number over the samples. Biases take back
    the mean of what int8 adds to each channel (arXiv 1906.04721, section 4.2, on samples).

    Args:
        model: quantized, float32, on the CPU, in evaluation mode.
        samples: calibration samples.
        settings: with the share of the operations that may stay in float, where int8 harms the output most; whether
            weights go from -64 to 64, for processors whose 16-bit sums of products would overflow; and the seed that
            draws labels to weigh errors with.
        kept: names of layers that stay in float anyway.

    Raises:
        ModelError: for a model that cannot be traced.
    """
    layers, largest = coded_layers(model), 64 if settings.seven_bits else 127
    graph = float_graph(model, samples.first(1), layers=list(layers))
    float_bytes = graph.ByteSize()
    _name_nodes(graph.graph)
    _fold_transposes(graph.graph, layers)
    layers = {name: layer for name, layer in layers.items() if _has_kernel(graph.graph, name, layer)}
    graph = onnx.shape_inference.infer_shapes(graph)
    measured = extremes(graph, _batches(samples), (*_WEIGHTED, *_FOLLOWING))
    ranges = shared(graph.graph, measured | of_layers(graph.graph, layers))
    weights = int8_weights(model, layers, samples, largest)
    fed = {name: ranges[weight_readers(graph.graph, name)[0].input[0]] for name in layers}
    judged = {name: Int8Layer(layer, weights[name].values, fed[name]) for name, layer in layers.items()}
    errors = layer_errors(model, judged, samples, settings.seed)
    chosen = harmed_layers(graph.graph, errors, settings.float_share, kept)
    whole = [name for name in layers if name not in chosen]
    for name in whole:
        _take_back(graph.graph, name, errors[name].shift)
    outputs = _plain_outputs(graph.graph)
    quantized = _quantize(graph, ranges, {name: weights[name] for name in whole}, settings.seven_bits)
    _leave_outputs(quantized.graph, outputs)
    _hold_floats(quantized.graph, [name for name in layers if name in chosen])
    return Int8Graph(quantized, float_bytes, tuple(name for name in coded_layers(model) if name not in whole), errors)


def _batches(samples: Samples) -> Iterator[Arrays]:
    for batch in samples.batches:
        yield {name: value.numpy() for name, value in named_inputs(batch).items()}


def _name_nodes(graph: GraphProto) -> None:
    for place, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{place}"


def _fold_transposes(graph: GraphProto, layers: Mapping[str, CodedLayer]) -> None:
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


def _has_kernel(graph: GraphProto, name: str, layer: CodedLayer) -> bool:
    """Whether a layer is computed in bytes: a convolution or a linear layer whose weight is a constant."""
    if not isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
        return False
    nodes = weight_readers(graph, name)
    constant = {held.name for held in graph.initializer}
    return bool(nodes) and all(node.op_type in _WEIGHTED and node.input[1] in constant for node in nodes)


def _take_back(graph: GraphProto, layer: str, shift: Tensor) -> None:
    """Subtracts the shift from the layer's bias; a ``MatMul`` that no constant is added to has none."""
    held = {one.name: one for one in graph.initializer}
    name = f"{layer}.bias_int8"
    for node in weight_readers(graph, layer):
        reader, place = node, 2
        if node.op_type == "MatMul":
            adds = [one for one in graph.node if one.op_type == "Add" and node.output[0] in one.input]
            if len(adds) != 1 or not any(value in held for value in adds[0].input):
                continue
            reader, place = adds[0], int(adds[0].input[1] in held)
        bias = numpy_helper.to_array(held[reader.input[place]]) if len(reader.input) > place else np.float32(0)
        if name not in held:
            graph.initializer.append(numpy_helper.from_array((bias - shift.numpy()).astype(np.float32), name))
        reader.input[place:] = [name, *reader.input[place + 1 :]]


def _quantize(
    model: ModelProto, ranges: Mapping[str, Range], weights: Mapping[str, Int8Weight], seven_bits: bool
) -> ModelProto:
    overrides: dict[str, list[dict[str, Any]]] = {}
    for name, weight in weights.items():
        axis = _axis(weight_readers(model.graph, name)[0])
        held = model.graph.initializer[initializer_index(model.graph, weight_name(name))]
        values = weight.values.numpy() if axis == 0 else weight.values.numpy().T
        held.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), held.name))
        overrides[weight_name(name)] = [
            {"axis": axis, "scale": step, "zero_point": 0, "quant_type": QuantType.QInt8} for step in weight.steps
        ]
    ends: dict[str, TensorData | tuple[Any, ...]] = {
        value: (np.float32(low), np.float32(high)) for value, (low, high) in ranges.items()
    }
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=seven_bits,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ends),
        nodes_to_quantize=_integer_nodes(model.graph, list(weights)),
        nodes_to_exclude=[],
        op_types_to_quantize=[*_WEIGHTED, *_FOLLOWING],
        extra_options={"TensorQuantOverrides": overrides, "OpTypesToExcludeOutputQuantization": ["MatMul"]},
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
        if node.op_type in _FOLLOWING and read and read <= integer:
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
