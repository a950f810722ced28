"""A coded layer's weight as OpenVINO nodes: constants of 1 to 8 bits, scales and adapter factors, folded at load."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray
from torch import Tensor

from corank.coded_weight import CodedWeight
from corank.export.stored import Kind, StoredWeight, stored_weight
from corank.layers import CodedLayer
from corank.matrix import Geometry

__all__ = ["NARROW_KINDS", "WIDE_KINDS", "constant_of_floats", "packed", "weight_node"]

WIDE_KINDS: tuple[Kind, ...] = ((4, True), (4, False), (8, True), (8, False))
NARROW_KINDS: tuple[Kind, ...] = ((1, False), (2, False), (3, False), *WIDE_KINDS)
_TYPES: dict[Kind, ov.Type] = {
    (1, False): ov.Type.u1,
    (2, False): ov.Type.u2,
    (3, False): ov.Type.u3,
    (4, True): ov.Type.i4,
    (4, False): ov.Type.u4,
    (8, True): ov.Type.i8,
    (8, False): ov.Type.u8,
}
_SAFE_GROUP = 16  # columns
_NODE_BYTES = 800  # of one more node in the XML


def weight_node(name: str, layer: CodedLayer, kinds: Sequence[Kind]) -> ov.Node:
    """What computes a layer's weight, in the layer's own shape, from constants alone.

    Args:
        name: of the layer; its constants are named after it.
        layer: coded.
        kinds: of whole numbers that constants may be.
    """
    code, geometry = layer.code(), layer.geometry
    stored = stored_weight(code.weight, kinds)
    groups, rows, columns = geometry.matrix_shape
    value = _rows(name, stored, (groups * rows, columns), _detour(stored))
    if code.adapter is not None:
        rank = code.adapter.rank
        left = _factor(f"{name}.left", code.adapter.left, (groups, rank, rows), kinds)
        right = _factor(f"{name}.right", code.adapter.right, (groups, rank, columns), kinds)
        product = ops.matmul(left, right, transpose_a=True, transpose_b=False)
        value = ops.add(value, _reshape(product, (groups * rows, columns)))
    return _own_shape(value, geometry)


def constant_of_floats(name: str, values: NDArray[np.float32]) -> ov.Node:
    """Floats as they are, or as float16 where that loses nothing and saves more than one more node costs."""
    half = values.astype(np.float16)
    if 2 * values.size > _NODE_BYTES and np.array_equal(half.astype(np.float32), values):
        return ops.convert(_named(ops.constant(half), name), ov.Type.f32)
    return _named(ops.constant(values), name)


def packed(values: NDArray[np.int64], kind: Kind) -> NDArray[np.uint8]:
    """Whole numbers as OpenVINO keeps them, a run of bytes.

    1 bit: the first number in the highest bit. 2 and 4 bits: in the lowest. 3 bits: eight numbers in three bytes, the
    low two bits of each from the highest bits down, then the high bits likewise.
    """
    bits, _ = kind
    flat = (values.reshape(-1) & ((1 << bits) - 1)).astype(np.uint8)
    if bits == 8:
        return flat
    if bits == 3:
        runs = np.pad(flat, (0, -len(flat) % 8)).reshape(-1, 2, 4)
        low = _joined(runs & 3, (6, 4, 2, 0))
        high = _joined(runs.reshape(-1, 8) >> 2, range(7, -1, -1))
        return np.concatenate([low, high[:, None]], axis=1).reshape(-1)
    count = 8 // bits
    places = range(7, -1, -1) if bits == 1 else range(0, 8, bits)
    return _joined(np.pad(flat, (0, -len(flat) % count)).reshape(-1, count), places)


def _joined(numbers: NDArray[Any], places: Sequence[int]) -> NDArray[np.uint8]:
    return np.bitwise_or.reduce(numbers << np.array(places, np.uint8), axis=-1).astype(np.uint8)


def _rows(name: str, stored: StoredWeight, shape: Sequence[int], through: Sequence[ov.Type]) -> ov.Node:
    """The values ``(R, C)``; codes become floats through those types."""
    rows, columns = shape
    groups = max(stored.scale.shape[1], 1 if stored.zero is None else stored.zero.shape[1])
    if groups == 1:
        return _values(name, stored, stored.codes, 2, through)
    wide = groups * stored.group_size
    codes = stored.codes.new_zeros(rows, wide)
    codes[:, :columns] = stored.codes
    value = _reshape(_values(name, stored, codes.reshape(rows, groups, -1), 3, through), (rows, wide))
    if wide == columns:
        return value
    bounds = [ops.constant(np.array([bound], np.int64)) for bound in (0, columns, 1, 1)]
    return ops.slice(value, *bounds)


def _detour(stored: StoredWeight) -> tuple[ov.Type, ...]:
    """Types on the way from codes to floats that keep the CPU plugin from decoding a linear layer's codes by itself.

    It does so wrongly (OpenVINO 2026.4) for groups of 5 columns; folded at once, they are right.
    """
    return (ov.Type.i32,) if stored.scale.shape[1] > 1 and stored.group_size % _SAFE_GROUP else ()


def _values(name: str, stored: StoredWeight, codes: Tensor, dims: int, through: Sequence[ov.Type]) -> ov.Node:
    """``scale * (codes - zero)`` in the shape of ``codes``, scales spread over its last axis."""
    value = _numbers(name, stored, codes, through)
    if stored.zero is not None:
        value = ops.subtract(value, constant_of_floats(f"{name}.zero", _over(stored.zero, dims)))
    if bool((stored.scale == 1).all()):
        return value
    return ops.multiply(value, constant_of_floats(f"{name}.scale", _over(stored.scale, dims)))


def _over(values: Tensor, dims: int) -> NDArray[np.float32]:
    """``(R, G)`` as ``(R, G, 1)`` where there are three dims."""
    array = values.numpy()
    return array if dims == 2 else array[..., None]


def _numbers(name: str, stored: StoredWeight, codes: Tensor, through: Sequence[ov.Type]) -> ov.Node:
    kind = (stored.bits, stored.signed)
    held = ov.Tensor(packed(codes.long().numpy(), kind), ov.Shape(list(codes.shape)), _TYPES[kind])
    constant = _named(ops.constant(held, shared_memory=False), f"{name}.codes")
    if stored.table is None:
        return functools.reduce(ops.convert, (*through, ov.Type.f32), constant)
    indices = ops.convert(constant, ov.Type.i32)
    table = _named(ops.constant(stored.table.numpy()), f"{name}.levels")
    if stored.table.dim() == 1:
        return ops.gather(table, indices, ops.constant(np.array(0, np.int64)))
    return ops.gather_elements(table, indices, 1)


def _factor(name: str, factor: CodedWeight, shape: Sequence[int], kinds: Sequence[Kind]) -> ov.Node:
    """One side of an adapter ``(G, r, R or C)``."""
    # A MatMul of constants that are int8 times a scale is computed wrongly by the CPU plugin of OpenVINO 2026.4 where
    # it transposes one of them; by way of int32 they are folded before it looks.
    values = _rows(name, stored_weight(factor, kinds), factor.codes.shape, (ov.Type.i32,))
    return _reshape(values, shape)


def _own_shape(value: ov.Node, geometry: Geometry) -> ov.Node:
    groups, rows, columns = geometry.matrix_shape
    if geometry.transposed:
        taps = math.prod(geometry.kernel)
        inputs = columns // taps
        split = _reshape(value, (groups, rows, inputs, taps))
        value = ops.transpose(split, ops.constant(np.array([0, 2, 1, 3], np.int64)))
    return _reshape(value, geometry.shape)


def _reshape(value: ov.Node, shape: Sequence[int]) -> ov.Node:
    if list(value.get_output_shape(0)) == list(shape):
        return value
    return ops.reshape(value, ops.constant(np.array(shape, np.int64)), False)


def _named(node: Any, name: str) -> Any:
    node.set_friendly_name(name)
    return node
