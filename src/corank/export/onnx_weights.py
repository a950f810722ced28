"""A coded layer's weight as ONNX nodes: packed codes, scales and adapter factors that a runtime folds at load."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

from corank.adapters import CodedLowRank
from corank.export.graph import initializer_index, weight_name
from corank.export.stored import Kind, StoredWeight, stored_weight
from corank.layers import CodedLayer
from corank.matrix import Geometry

__all__ = ["DENSE_KINDS", "KINDS", "TWO_BIT_KINDS", "Part", "halve", "matrix_values", "replace_weights"]

KINDS: tuple[Kind, ...] = ((4, True), (4, False), (8, True), (8, False))  # opset 21
TWO_BIT_KINDS: tuple[Kind, ...] = ((2, True), (2, False), *KINDS)  # opset 25
DENSE_KINDS: tuple[Kind, ...] = tuple(sorted({*KINDS, *((bits, False) for bits in range(1, 9))}))
_TYPES: dict[Kind, Any] = {
    (2, True): ml_dtypes.int2,
    (2, False): ml_dtypes.uint2,
    (4, True): ml_dtypes.int4,
    (4, False): ml_dtypes.uint4,
    (8, True): np.int8,
    (8, False): np.uint8,
}
_CAST_BYTES = 48  # of a Cast node beside the three times that it names a value


@dataclass(frozen=True)
class Part:
    """Nodes and constants of one layer, in order. Constants are named after it, values between nodes by number."""

    layer: str
    nodes: list[NodeProto]
    constants: dict[str, TensorProto]
    dense: bool
    values: str = "w"

    def constant(self, name: str, value: NDArray[Any]) -> str:
        full = f"{self.layer}.{name}"
        self.constants[full] = numpy_helper.from_array(np.ascontiguousarray(value), full)
        return full

    def shape(self, sizes: Sequence[int]) -> str:
        """A constant shape; equal ones are kept once in the graph."""
        return self.shared("shape_" + "x".join(map(str, sizes)), np.array(sizes, np.int64))

    def node(self, kind: str, inputs: Sequence[str], attributes: Mapping[str, Any] | None = None) -> str:
        output = f"{self.values}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **(attributes or {})))
        return output

    def shared(self, name: str, value: NDArray[Any]) -> str:
        """A constant that every layer may use."""
        self.constants[name] = numpy_helper.from_array(value, name)
        return name

    def reshape(self, value: str, sizes: Sequence[int]) -> str:
        return self.node("Reshape", [value, self.shape(sizes)])


def replace_weights(
    graph: GraphProto, layers: Mapping[str, CodedLayer], kinds: Sequence[Kind], dense: bool = False
) -> None:
    """Puts codes in the place of each layer's float initializer.

    A weight with a scale for each output channel or for the tensor becomes one ``DequantizeLinear`` of codes in its own
    shape; one with grouped scales a blocked one of the matrix ``(rows, columns)``; levels that are not equally spaced
    a ``Gather``. An adapter is added as ``MatMul`` of its dequantized factors.

    Args:
        graph: of :func:`corank.export.graph.float_graph`; changed.
        layers: name to layer.
        kinds: of whole numbers that may be used.
        dense: codes of widths that ONNX has no type for lie in bytes, and all are decoded by plain arithmetic, without
            ``DequantizeLinear``.
    """
    nodes: list[NodeProto] = []
    constants: dict[str, TensorProto] = {}
    for name, layer in layers.items():
        if all(weight_name(name) not in node.input for node in graph.node):
            continue  # never read by what the example runs
        # The last node then writes the value of that name, so no node that reads it has to change.
        del graph.initializer[initializer_index(graph, weight_name(name))]
        _weight(Part(name, nodes, constants, dense), layer, kinds)
        nodes[-1].output[0] = weight_name(name)
    rest = list(graph.node)
    del graph.node[:]
    # In front: ONNX wants every value written before it is read.
    graph.node.extend([*nodes, *rest])
    graph.initializer.extend(constants.values())


def halve(graph: GraphProto) -> None:
    """Keeps float32 initializers as float16 where that loses nothing and saves bytes; a ``Cast`` gives them back."""
    casts = []
    for initializer in graph.initializer:
        cost = _CAST_BYTES + 3 * len(initializer.name)
        # Two bytes a number are saved, and a node is added.
        if initializer.data_type != TensorProto.FLOAT or 2 * math.prod(initializer.dims) <= cost:
            continue
        value = numpy_helper.to_array(initializer)
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        # Scales and levels of fp16 pass, since they were rounded at fitting; other numbers stay as they are.
        if not np.array_equal(half.astype(np.float32), value):
            continue
        name = initializer.name
        initializer.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *rest])


def _weight(part: Part, layer: CodedLayer, kinds: Sequence[Kind]) -> None:
    """Nodes of which the last one gives the weight in the layer's own shape."""
    code, geometry = layer.code(), layer.geometry
    stored = stored_weight(code.weight, kinds)
    if code.adapter is None and not part.dense and _fits_own_shape(stored, geometry):
        codes = part.constant("codes", _numbers(stored, geometry.from_matrix(stored.codes)))
        _dequantized(part, stored, codes, 1 if geometry.transposed else 0)
        return
    value = matrix_values(part, stored)
    if code.adapter is not None:
        value = part.node("Add", [value, _product(part, code.adapter, geometry, kinds)])
    _to_own_shape(part, value, geometry)


def _fits_own_shape(stored: StoredWeight, geometry: Geometry) -> bool:
    """Whether one ``DequantizeLinear`` along one axis of the weight's own shape gives it."""
    if not stored.is_affine or stored.scale.shape[1] > 1:
        return False
    rows_at = 1 if geometry.transposed else 0
    if geometry.flat and geometry.shape[rows_at] != geometry.flat[0]:
        return stored.scale.numel() == 1
    if geometry.flat and geometry.transposed and len(geometry.shape) > 2:
        return stored.scale.numel() == 1
    return stored.scale.numel() == 1 or not geometry.transposed or geometry.groups == 1


def _dequantized(part: Part, stored: StoredWeight, codes: str, axis: int) -> str:
    """``scale * (codes - zero)``; scales of groups of columns go with a matrix ``(rows, columns)``."""
    attributes: dict[str, int] = {"axis": axis}
    scale, zero = stored.scale, stored.zero
    if scale.shape[1] > 1:
        # A scale for each row and block of columns: blocked quantization, in ONNX from opset 21 on.
        attributes = {"axis": 1, "block_size": stored.group_size}
    else:
        # A scale for the whole tensor is a scalar and has no axis; one for each row is a list along the axis.
        flat = () if scale.numel() == 1 else (-1,)
        scale = scale.reshape(flat)
        zero = None if zero is None else zero.expand(stored.scale.shape).reshape(flat)
        attributes = attributes if flat else {}
    inputs = [codes, part.constant("scale", scale.numpy())]
    if zero is not None:
        inputs.append(part.constant("zero", _numbers(stored, zero)))
    return part.node("DequantizeLinear", inputs, attributes)


def matrix_values(part: Part, stored: StoredWeight) -> str:
    """The values ``(R, C)``."""
    rows, columns = stored.codes.shape
    groups = stored.scale.shape[1]
    wide, codes = columns, stored.codes
    apart = part.dense or not stored.is_affine
    # Filled up to whole groups, so that a reshape sets the groups apart; the rest is cut off at the end.
    if groups > 1 and apart:
        wide = groups * stored.group_size
        codes = codes.new_zeros(rows, wide)
        codes[:, :columns] = stored.codes
    if not apart:
        return _dequantized(part, stored, part.constant("codes", _numbers(stored, codes)), 0)
    value = _looked_up(part, stored.table, _held(part, stored, codes))
    # Zero first: it is in units of the numbers, before they are scaled.
    for kind, name, operand in (("Sub", "zero", stored.zero), ("Mul", "scale", stored.scale)):
        if operand is not None and not (kind == "Mul" and bool((operand == 1).all())):
            value = _by_group(part, kind, value, part.constant(name, operand.numpy()), (*operand.shape, wide))
    return value if wide == columns else _first_columns(part, value, columns)


def _held(part: Part, stored: StoredWeight, codes: Tensor) -> str:
    """The codes: of an ONNX type where there is one, otherwise a bit of eight codes to a byte."""
    bits = stored.bits
    if not part.dense or bits in (4, 8):
        return part.constant("codes", _numbers(stored, codes))
    # Bit planes: a width without a type of its own would take the next larger one, and planes take no more than their
    # bits. Eight codes lie in a byte of each plane, the first in its highest bit.
    flat = codes.numpy().astype(np.uint8).reshape(-1)
    planes = np.stack([np.packbits(flat >> bit & 1) for bit in range(bits)])[..., None]
    places = part.shared("places_in_byte", np.arange(7, -1, -1, dtype=np.uint8))
    # Planes ``(bits, bytes, 1)`` against places ``(8,)``: every bit of every plane at once.
    spread = part.node("BitShift", [part.constant("planes", planes), places], {"direction": "RIGHT"})
    ones = part.node("BitwiseAnd", [spread, part.shared("lowest_bit", np.array(1, np.uint8))])
    worth = part.shared(f"worth_of_{bits}_bits", (2.0 ** np.arange(bits)).astype(np.float32).reshape(-1, 1, 1))
    numbers = part.node("Mul", [part.node("Cast", [ones], {"to": TensorProto.FLOAT}), worth])
    summed = part.node("ReduceSum", [numbers, part.shape([0])], {"keepdims": 0})
    run = part.reshape(summed, [-1])
    # The bits that filled up the last byte are no codes.
    if len(flat) % 8:
        run = part.node("Slice", [run, *(part.shape([bound]) for bound in (0, len(flat)))])
    return part.reshape(run, codes.shape)


def _looked_up(part: Part, table: Tensor | None, codes: str) -> str:
    if table is None:
        return part.node("Cast", [codes], {"to": TensorProto.FLOAT})
    indices = part.node("Cast", [codes], {"to": TensorProto.INT64})
    held = part.constant("levels", table.numpy())
    if table.dim() == 1:
        return part.node("Gather", [held, indices])
    return part.node("GatherElements", [held, indices], {"axis": 1})


def _by_group(part: Part, kind: str, value: str, operand: str, shape: Sequence[int]) -> str:
    """``value`` ``(R, C)`` with ``operand`` ``(R, G)``, one for each group of columns; ``shape`` is ``(R, G, C)``."""
    rows, groups, columns = shape
    if groups == 1:
        return part.node(kind, [value, operand])
    # The groups get an axis of their own, along which one operand for each broadcasts.
    apart = part.reshape(value, (rows, groups, columns // groups))
    changed = part.node(kind, [apart, part.reshape(operand, (rows, groups, 1))])
    return part.reshape(changed, (rows, columns))


def _first_columns(part: Part, value: str, columns: int) -> str:
    bounds = [part.shape([bound]) for bound in (0, columns, 1)]
    return part.node("Slice", [value, *bounds])


def _product(part: Part, adapter: CodedLowRank, geometry: Geometry, kinds: Sequence[Kind]) -> str:
    """``left @ right`` ``(G * R, C)``."""
    groups, rows, columns = geometry.matrix_shape
    right = matrix_values(replace(part, layer=f"{part.layer}.right"), stored_weight(adapter.right, kinds))
    stored = stored_weight(adapter.left, kinds)
    left = replace(part, layer=f"{part.layer}.left")
    # A row of the stored factor is a direction: turned here, with its scales along axis 1, no node has to do it.
    if groups == 1 and not part.dense:
        turned = _dequantized(left, stored, left.constant("codes", _numbers(stored, stored.codes.T)), 1)
        return part.node("MatMul", [turned, right])
    if groups == 1:
        return part.node("MatMul", [part.node("Transpose", [matrix_values(left, stored)], {"perm": [1, 0]}), right])
    apart = part.reshape(matrix_values(left, stored), (groups, adapter.rank, rows))
    turned = part.node("Transpose", [apart], {"perm": [0, 2, 1]})
    product = part.node("MatMul", [turned, part.reshape(right, (groups, adapter.rank, columns))])
    return part.reshape(product, (groups * rows, columns))


def _to_own_shape(part: Part, value: str, geometry: Geometry) -> None:
    """Ends with the weight in the layer's own shape; a linear layer's matrix is that already."""
    groups, rows, columns = geometry.matrix_shape
    if not geometry.transposed and geometry.shape == (rows, columns):
        return
    # A transposed convolution keeps inputs before outputs: the inverse of ``Geometry.to_matrix`` as nodes.
    if geometry.transposed:
        taps = math.prod(geometry.kernel)
        inputs = columns // taps
        value = part.reshape(value, (groups, rows, inputs, taps))
        value = part.node("Transpose", [value], {"perm": [0, 2, 1, 3]})
    part.reshape(value, geometry.shape)


def _numbers(stored: StoredWeight, values: Tensor) -> NDArray[Any]:
    return values.to(dtype=stored.codes.dtype).numpy().astype(_TYPES[stored.bits, stored.signed])
