"""Layers that round their inputs, as ``QuantizeLinear`` and ``DequantizeLinear`` before their nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper, numpy_helper

from corank.export.graph import weight_readers
from corank.layers import BinaryInputs, CodedLayer, InputQuantizer, InputRounder

__all__ = ["round_inputs"]


def round_inputs(graph: GraphProto, layers: Mapping[str, CodedLayer], as_codes: bool = True) -> None:
    """Rounds what each layer reads as the layer does: 8-bit codes, clipped to fewer where it has fewer.

    A layer whose padding repeats its inputs is rounded after the padding, which gives the same numbers. Layers that
    round one value alike share the nodes. Shifts are
    taken off before; inputs of 1 bit are compared with theirs, whatever ``as_codes`` says.

    Args:
        graph: of :func:`corank.export.graph.float_graph`; changed.
        layers: name to layer; those with inputs in float are passed over.
        as_codes: with ``QuantizeLinear`` and ``DequantizeLinear``; otherwise with plain arithmetic, which no runtime
            takes for a wish to compute in integers.

    Raises:
        ModelError: where a layer's node is of an unknown kind.
    """
    wanted: dict[str, InputRounder] = {}  # by the output of the node that reads
    for name, layer in layers.items():
        rounding = layer.input_quantizer()
        if rounding is not None:
            wanted |= {node.output[0]: rounding for node in weight_readers(graph, name)}
    spell = _as_codes if as_codes else _as_floats
    made: dict[tuple[str, bytes], str] = {}
    ordered: list[NodeProto] = []
    for node in list(graph.node):
        rounding = wanted.get(node.output[0])
        if rounding is not None:
            key = (node.input[0], _stored(rounding))
            if key not in made:
                name = f"{node.input[0]}.rounded_{len(made)}"
                if isinstance(rounding, BinaryInputs):
                    made[key] = _as_signs(graph, ordered, node.input[0], name, rounding)
                else:
                    value = _less_shift(graph, ordered, node.input[0], name, rounding)
                    made[key] = spell(graph, ordered, value, name, rounding)
            node.input[0] = made[key]
        ordered.append(node)
    del graph.node[:]
    graph.node.extend(ordered)


def _stored(rounding: InputRounder) -> bytes:
    """What tells one rounding from another."""
    numbers = [tensor.double().reshape(-1) for tensor in rounding.tensors().values()]
    return bytes([rounding.bits]) + b"".join(tensor.numpy().tobytes() for tensor in numbers)


def _as_signs(graph: GraphProto, nodes: list[NodeProto], value: str, name: str, rounding: BinaryInputs) -> str:
    step = np.asarray(float(rounding.step), np.float32)
    shift = np.zeros((), np.float32) if rounding.shift is None else rounding.shift.numpy()
    least, high, low = _constants(graph, name, {"shift": shift, "high": step, "low": -step})
    nodes.append(helper.make_node("GreaterOrEqual", [value, least], [f"{name}.high_ones"]))
    nodes.append(helper.make_node("Where", [f"{name}.high_ones", high, low], [name]))
    return name


def _less_shift(graph: GraphProto, nodes: list[NodeProto], value: str, name: str, rounding: InputQuantizer) -> str:
    """The value less the shift of each channel, where there is one."""
    if rounding.shift is None:
        return value
    nodes.append(
        helper.make_node("Sub", [value, *_constants(graph, name, {"shift": rounding.shift.numpy()})], [f"{name}.moved"])
    )
    return f"{name}.moved"


def _as_codes(graph: GraphProto, nodes: list[NodeProto], value: str, name: str, rounding: InputQuantizer) -> str:
    step, low, high = _numbers(rounding)
    scale = _constants(graph, name, {"step": step, "zero": np.asarray(rounding.offset, np.uint8)})
    if rounding.bits < 8:  # at 8 bits what uint8 holds is the range
        bounds = _constants(graph, name, {"low": low * step, "high": high * step})
        nodes.append(helper.make_node("Clip", [value, *bounds], [f"{name}.clipped"]))
        value = f"{name}.clipped"
    nodes.append(helper.make_node("QuantizeLinear", [value, *scale], [f"{name}.codes"]))
    nodes.append(helper.make_node("DequantizeLinear", [f"{name}.codes", *scale], [name]))
    return name


def _as_floats(graph: GraphProto, nodes: list[NodeProto], value: str, name: str, rounding: InputQuantizer) -> str:
    step, low, high = _constants(graph, name, dict(zip(("step", "low", "high"), _numbers(rounding), strict=True)))
    chain = (("Div", [step]), ("Round", []), ("Clip", [low, high]), ("Mul", [step]))
    for kind, operands in chain:
        output = name if kind == "Mul" else f"{name}.{kind.lower()}"
        nodes.append(helper.make_node(kind, [value, *operands], [output]))
        value = output
    return name


def _numbers(rounding: InputQuantizer) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Step, and the least and the largest multiple of it."""
    low, high = -rounding.offset, 2**rounding.bits - 1 - rounding.offset
    step = np.asarray(float(rounding.step), np.float32)
    return step, np.asarray(low, np.float32), np.asarray(high, np.float32)


def _constants(graph: GraphProto, name: str, values: Mapping[str, NDArray[Any]]) -> list[str]:
    names = [f"{name}.{kind}" for kind in values]
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), full) for full, value in zip(names, values.values(), strict=True)
    )
    return names
