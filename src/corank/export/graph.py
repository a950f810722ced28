"""The merged float network as an ONNX graph in which every coded layer's weight is found by name."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper
from torch import Tensor, nn

from corank.errors import ConfigError, ModelError
from corank.export.example import INPUT, Axes, named_inputs, named_outputs, outputs_of
from corank.export.to_torch import to_float
from corank.export.traceable import traceable, zero_masked_rows
from corank.layers import CodedLayer, module_named

__all__ = [
    "coded_layers",
    "float_graph",
    "float_model",
    "initializer_index",
    "initializers_to_inputs",
    "weight_name",
    "weight_readers",
]

_NETWORK = "network"

_READERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def weight_name(layer: str) -> str:
    """Name of the initializer that holds a coded layer's weight in :func:`float_graph`."""
    return f"{layer}.weight"


def coded_layers(model: nn.Module) -> dict[str, CodedLayer]:
    """Name to coded layer, in the order of the modules; a shared layer once, under its first name.

    Layers of a device are given as copies on the CPU, where files are made and run.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, CodedLayer)}
    return {
        name: layer if next(layer.buffers()).device.type == "cpu" else copy.deepcopy(layer).cpu()
        for name, layer in found.items()
    }


def float_model(model: nn.Module) -> nn.Module:
    """A float32 copy of a quantized model on the CPU, in evaluation mode, every coded layer merged into a plain one."""
    return to_float(model, held=True).cpu().float().eval()


def float_graph(
    model: nn.Module,
    example: Any,
    *,
    layers: Sequence[str] | None = None,
    opset: int = 21,
    dynamic: Axes = (0,),
) -> ModelProto:
    """The float network, adapters merged, as ONNX.

    The weights of ``layers`` are given to ``torch.onnx`` as inputs and become initializers afterwards. So whatever the
    exporter folds, fuses or shares, each of them is there once, whole, in the shape that PyTorch keeps it in, under
    :func:`weight_name`; a layer that is called twice has one initializer and two readers. A linear layer may read
    its weight through a ``Transpose``. Inputs that a layer rounds are not rounded here.

    Args:
        model: of :func:`corank.quantize` or :func:`corank.load`, or any float model.
        example: a tensor ``(N, ...)``, or a mapping of keyword arguments to such tensors. Their names become the
            graph's inputs; a single tensor is ``input``.
        layers: names of the layers whose weights are named; None: every coded layer.
        opset: of the graph's operators.
        dynamic: axes of the inputs whose length is left open, of all or by the input's name; axis 0 is the batch.

    Raises:
        DataError: for an example that the model cannot take.
        ModelError: for a model that ``torch.export`` cannot trace, or whose batch cannot be left open.
    """
    names = list(coded_layers(model)) if layers is None else list(layers)
    plain = traceable(float_model(model))
    weights = {weight_name(name): _weight(plain, name) for name in names}
    given = named_inputs(example)
    axes = dynamic if isinstance(dynamic, Mapping) else dict.fromkeys(given, dynamic)
    inputs = {name: _long_enough(tensor, axes[name]) for name, tensor in given.items()}
    outputs = list(outputs_of(plain, inputs))
    graph = _trace(plain, inputs, weights, _Form(outputs, opset, axes))
    _tidy(graph)
    zero_masked_rows(graph.graph)
    _inputs_to_initializers(graph.graph, weights)
    return graph


def initializer_index(graph: GraphProto, name: str) -> int:
    """Place of an initializer by its name.

    Raises:
        ModelError: when there is none.
    """
    for place, initializer in enumerate(graph.initializer):
        if initializer.name == name:
            return place
    raise ModelError(f"the exported graph has no weight {name!r}")


def initializers_to_inputs(graph: GraphProto, names: Sequence[str]) -> None:
    """Makes initializers inputs of the graph, for readers that put something else in their place; others are kept."""
    held = {initializer.name: initializer for initializer in graph.initializer}
    for name in names:
        if name in held:
            kind, sizes = held[name].data_type, list(held[name].dims)
            del graph.initializer[initializer_index(graph, name)]
            graph.input.append(helper.make_tensor_value_info(name, kind, sizes))


def weight_readers(graph: GraphProto, layer: str) -> list[NodeProto]:
    """The nodes that compute with a layer's weight as their second input, each in the order of the graph.

    Raises:
        ModelError: when a node of another kind reads it.
    """
    wanted, found = {weight_name(layer)}, []
    for node in graph.node:
        if wanted.isdisjoint(node.input):
            continue
        if node.op_type in ("Transpose", "Identity"):
            wanted.add(node.output[0])
        elif node.op_type in _READERS and node.input[1] in wanted:
            found.append(node)
        else:
            raise ModelError(f"layer {layer!r} became a {node.op_type}, which this export does not know")
    return found


class _Traced(nn.Module):
    """A network that takes some of its weights as arguments, and gives a tuple of tensors."""

    def __init__(self, network: nn.Module, inputs: Sequence[str], weights: Sequence[str]) -> None:
        super().__init__()
        self.network, self.inputs, self.weights = network, tuple(inputs), tuple(weights)

    def forward(self, inputs: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, ...]:
        given = dict(zip(self.inputs, inputs, strict=True))
        args, named = ((given[INPUT],), {}) if self.inputs == (INPUT,) else ((), given)
        with _given(self.network, dict(zip(self.weights, weights, strict=True))):
            result = self.network(*args, **named)
        return tuple(named_outputs(result).values())


@contextmanager
def _given(network: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Within, layers compute with other weights, by the names of the parameters: as torch's ``functional_call``, which
    takes a weight that is read from a layer for that layer."""
    modules = dict(network.named_modules(remove_duplicate=False))
    places = [(modules[name.rpartition(".")[0]]._parameters, name.rpartition(".")[2]) for name in weights]
    before = [held[name] for held, name in places]
    try:
        for (held, name), weight in zip(places, weights.values(), strict=True):
            held[name] = weight  # pyright: ignore[reportArgumentType]
        yield
    finally:
        for (held, name), weight in zip(places, before, strict=True):
            held[name] = weight


@dataclass(frozen=True)
class _Form:
    """Names of a graph's outputs, the version of its operators, and the axes of its inputs that are left open."""

    outputs: Sequence[str]
    opset: int
    dynamic: Mapping[str, Sequence[int]]


def _trace(plain: nn.Module, inputs: Mapping[str, Tensor], weights: Mapping[str, Tensor], form: _Form) -> ModelProto:
    given = (list(inputs.values()), list(weights.values()))
    left_open = [
        {axis: torch.export.Dim.DYNAMIC for axis in form.dynamic[name] if axis < tensor.dim()}
        for name, tensor in inputs.items()
    ]
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own deprecations, which its caller cannot mend
            program = torch.onnx.export(
                _Traced(plain, list(inputs), list(weights)).eval(),
                given,
                dynamo=True,
                dynamic_shapes=(left_open, [None] * len(weights)),
                input_names=[*inputs, *weights],
                output_names=form.outputs,
                opset_version=form.opset,
                verbose=False,
            )
    except Exception as error:  # torch.onnx raises errors of many kinds
        first = str(error.__cause__ or error).strip().splitlines()
        hint = "; with the axes of its inputs left open it must run at any length of them: dynamic=() fixes all"
        raise ModelError(
            f"torch.onnx cannot export this {type(plain).__name__}: {first[0] if first else type(error).__name__}"
            f"{hint if any(form.dynamic.values()) else ''}"
        ) from error
    finally:
        quiet.setLevel(level)
    if program is None:
        raise ModelError(f"torch.onnx gave nothing for this {type(plain).__name__}")
    return program.model_proto


def _tidy(model: ModelProto) -> None:
    """Takes out what only the exporter needs (stack traces, shapes of values) and its prefix of names."""
    model.graph.ClearField("value_info")
    model.graph.ClearField("metadata_props")
    prefix = f"{_NETWORK}."
    taken = {name for value in (model.graph.input, model.graph.output) for name in (one.name for one in value)}
    renamed = {}
    for initializer in model.graph.initializer:
        short = initializer.name.removeprefix(prefix)
        if initializer.name.startswith(prefix) and short not in taken:
            renamed[initializer.name] = initializer.name = short
        initializer.ClearField("doc_string")
        initializer.ClearField("metadata_props")
    for node in _nodes(model.graph):
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
        node.input[:] = [renamed.get(name, name) for name in node.input]


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph and of the graphs inside them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def _inputs_to_initializers(graph: GraphProto, weights: Mapping[str, Tensor]) -> None:
    kept = [value for value in graph.input if value.name not in weights]
    del graph.input[:]
    graph.input.extend(kept)
    read = {name for node in _nodes(graph) for name in node.input}
    for name, value in weights.items():
        if name in read:
            graph.initializer.append(numpy_helper.from_array(value.numpy(), name))


def _weight(plain: nn.Module, layer: str) -> Tensor:
    try:
        return module_named(plain, layer).get_parameter("weight").detach().contiguous()
    except (AttributeError, KeyError) as error:
        raise ModelError(f"the model has no layer {layer!r} with a weight") from error


def _long_enough(tensor: Tensor, dynamic: Sequence[int]) -> Tensor:
    """The example with a batch of two at least: torch takes a length of one for a fixed one."""
    for axis in dynamic:
        if axis and axis < tensor.dim() and tensor.shape[axis] < 2:
            raise ConfigError(f"axis {axis} of the example is {tensor.shape[axis]} long; an open axis takes 2 or more")
    return torch.cat([tensor, tensor]) if 0 in dynamic and tensor.shape[0] == 1 else tensor
