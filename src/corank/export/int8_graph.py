"""The merged float network as an ONNX graph that onnxruntime runs in int8: ``QuantizeLinear`` and ``DequantizeLinear``
around every node that has an integer kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, numpy_helper
from torch import Tensor, nn

from corank.calibration import Samples
from corank.export.check import Arrays
from corank.export.example import named_inputs
from corank.export.graph import coded_layers, float_graph, weight_readers
from corank.export.int8_choice import harmed_layers
from corank.export.int8_errors import Int8Layer, LayerError, layer_errors
from corank.export.int8_qdq import FOLLOWING, WEIGHTED, Integers, fold_transposes, has_kernel, integer_graph, name_nodes
from corank.export.int8_ranges import extremes, of_layers, shared
from corank.export.int8_settings import Int8
from corank.export.int8_weights import int8_weights

__all__ = ["Int8Graph", "int8_graph"]


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
    name_nodes(graph.graph)
    fold_transposes(graph.graph, layers)
    layers = {name: layer for name, layer in layers.items() if has_kernel(graph.graph, name, layer)}
    graph = onnx.shape_inference.infer_shapes(graph)
    measured = extremes(graph, _batches(samples), (*WEIGHTED, *FOLLOWING))
    ranges = shared(graph.graph, measured | of_layers(graph.graph, layers))
    weights = int8_weights(model, layers, samples, largest)
    fed = {name: ranges[weight_readers(graph.graph, name)[0].input[0]] for name in layers}
    judged = {name: Int8Layer(layer, weights[name].values, fed[name]) for name, layer in layers.items()}
    errors = layer_errors(model, judged, samples, settings.seed)
    chosen = harmed_layers(graph.graph, errors, settings.float_share, kept)
    whole = [name for name in layers if name not in chosen]
    for name in whole:
        _take_back(graph.graph, name, errors[name].shift)
    held = [name for name in layers if name in chosen]
    how = Integers(settings.seven_bits)
    quantized = integer_graph(graph, ranges, {name: weights[name] for name in whole}, how, held)
    return Int8Graph(quantized, float_bytes, tuple(name for name in coded_layers(model) if name not in whole), errors)


def _batches(samples: Samples) -> Iterator[Arrays]:
    for batch in samples.batches:
        yield {name: value.numpy() for name, value in named_inputs(batch).items()}


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
