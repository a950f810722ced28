"""Linear layers and embeddings as onnxruntime's operators that compute with packed codes: ``MatMulNBits`` multiplies
with them, ``GatherBlockQuantized`` reads rows of them.

Shapes: ``R`` rows, ``C`` columns, ``B`` blocks of columns, ``G`` groups of columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper
from torch import Tensor

from corank.adapters import CodedLowRank
from corank.export.graph import initializer_index, weight_name
from corank.export.onnx_weights import DENSE_KINDS, Part, matrix_values
from corank.export.stored import Kind, StoredWeight, stored_weight
from corank.layers import CodedLayer
from corank.matrix import Geometry

__all__ = ["DOMAIN", "pack_products"]

DOMAIN = "com.microsoft"
_KINDS: tuple[Kind, ...] = ((2, False), (4, False), (8, False))
_BLOCKS = (16, 32, 64, 128, 256)
_IN_INTEGERS = 4  # the accuracy level at which inputs are rounded to 8 bits
_GATHER = "Gather"


@dataclass(frozen=True)
class _Plane:
    """Numbers that make up a weight: ``scale * (codes - zero)``.

    Attributes:
        name: of its constants.
        bits: of a code: 2, 4 or 8.
        codes: ``(R, C)``.
        scale, zero: ``(R, G)`` float32; zero points are whole, and codes of that width.
    """

    name: str
    bits: int
    codes: Tensor
    scale: Tensor
    zero: Tensor


@dataclass(frozen=True)
class _Form:
    """A layer as it is packed.

    Attributes:
        planes: their sum is the weight, less ``rest``.
        block: columns that share a scale in the operators.
        rest: ``(R, G)``: how far zero points are from whole ones, times the scale; None where all are whole.
        level: the accuracy level of its products.
    """

    planes: tuple[_Plane, ...]
    block: int
    rest: Tensor | None
    level: int


def pack_products(graph: GraphProto, layers: Mapping[str, CodedLayer], level: int) -> list[str]:
    """Puts operators that read packed codes in the place of products with a layer's weight, and of looking up its rows.

    Codes of 2, 3 and 4 bits are kept in 2 and 4. Wider ones are two planes of 4 bits, since products with 8 are slow
    unless inputs are rounded. Zero points of 4-bit codes have to be whole; what they lack is taken off the product: the
    sum of each group's inputs times ``rest``. An adapter is multiplied beside.

    Args:
        graph: of :func:`corank.export.graph.float_graph`; changed.
        layers: name to layer.
        level: ``accuracy_level`` of ``MatMulNBits``: 0, or 4 to round inputs to 8 bits.

    Returns:
        Names of the layers that are left as they are: convolutions, levels that are not equally spaced, groups that are
        no multiple of 16 columns.
    """
    front: list[NodeProto] = []
    constants: dict[str, TensorProto] = {}
    placed: dict[str, list[NodeProto]] = {}  # by the output of the node that they replace
    gone: set[str] = set()
    left = []
    for name, layer in layers.items():
        readers = _readers(graph, name, layer.geometry)
        form = _form(layer, readers, level) if readers else None
        if form is None:
            left.append(name)
            continue
        packed = _PackedLayer(Part(name, front, constants, True, "p"), form, layer.code().adapter)
        for node in readers or ():
            placed[node.output[0]] = packed.gathered(node) if node.op_type == _GATHER else packed.multiplied(node)
        del graph.initializer[initializer_index(graph, weight_name(name))]
        gone.add(weight_name(name))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend(front)
    for node in rest:
        if node.op_type in ("Transpose", "Identity") and node.input[0] in gone:
            gone.add(node.output[0])
        else:
            graph.node.extend(placed.get(node.output[0], [node]))
    graph.initializer.extend(constants.values())
    return left


def _readers(graph: GraphProto, layer: str, geometry: Geometry) -> list[NodeProto] | None:
    """The products with a layer's matrix and the look-ups of its rows; None where anything else reads the weight."""
    groups, *matrix = geometry.matrix_shape
    if groups > 1 or geometry.kernel or geometry.flat or len(geometry.shape) != 2:
        return None
    upright = {weight_name(layer): geometry.shape == tuple(matrix) and not geometry.transposed}  # (R, C), not (C, R)
    found = []
    for node in graph.node:
        named = [name for name in node.input if name in upright]
        if not named:
            continue
        rows = upright[named[0]]
        if node.op_type in ("Transpose", "Identity"):
            upright[node.output[0]] = rows if node.op_type == "Identity" else not rows
        elif _computes(node, named[0], rows):
            found.append(node)
        else:
            return None
    return found


def _computes(node: NodeProto, weight: str, upright: bool) -> bool:
    """Whether a node multiplies with a weight's matrix as a linear layer does, or looks up its rows."""
    if node.op_type == _GATHER:
        return node.input[0] == weight and upright and not _attribute(node, "axis", 0)
    if node.op_type == "Gemm":
        plain = not _attribute(node, "transA", 0) and _attribute(node, "alpha", 1) == _attribute(node, "beta", 1) == 1
        return plain and node.input[1] == weight and upright == bool(_attribute(node, "transB", 0))
    return node.op_type == "MatMul" and node.input[1] == weight and not upright


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), default)


def _form(layer: CodedLayer, readers: Sequence[NodeProto], level: int) -> _Form | None:
    """How a layer is packed; None where the operators cannot hold it."""
    stored = stored_weight(layer.code().weight, _KINDS)
    rows, columns = stored.codes.shape
    gathers = any(node.op_type == _GATHER for node in readers)
    if stored.table is not None:
        return None
    zero = torch.zeros(1, 1, dtype=torch.float32) if stored.zero is None else stored.zero
    groups = max(stored.scale.shape[1], zero.shape[1])
    scale, zero = stored.scale.expand(rows, groups), zero.expand(rows, groups)
    whole = zero.floor().clamp(0, (1 << stored.bits) - 1)
    rest = None if torch.equal(whole, zero) else scale * (zero - whole)
    block = _block(stored, groups, gathers)
    if block is None or columns % groups:
        return None
    planes = (_Plane("codes", stored.bits, stored.codes, scale, whole),)
    if stored.bits == 8 and level != _IN_INTEGERS and any(node.op_type != _GATHER for node in readers):
        planes = tuple(
            _Plane(name, 4, stored.codes // unit % 16, scale * unit, (whole // unit) % 16)
            for name, unit in (("high", 16), ("low", 1))
        )
    return _Form(planes, block, rest, level)


def _block(stored: StoredWeight, groups: int, divides: bool) -> int | None:
    """The block of columns that takes the least memory, within a group; a whole number of them where ``divides``."""
    columns = stored.codes.shape[1]
    size = columns if groups == 1 else stored.group_size
    able = [block for block in _BLOCKS if (groups == 1 or size % block == 0) and not (divides and columns % block)]
    # Codes, a float32 scale and a zero point for each block.
    return min(able, key=lambda block: -(-columns // block) * (block * stored.bits + 32 + stored.bits), default=None)


class _PackedLayer:
    """Constants of one layer, and the nodes that take the place of those that read its weight."""

    def __init__(self, part: Part, form: _Form, adapter: CodedLowRank | None) -> None:
        self._part, self._form, self._adapter = part, form, adapter
        self._rows, self._columns = form.planes[0].codes.shape
        self._blocks = -(-self._columns // form.block)
        self._made: dict[str, str] = {}

    def multiplied(self, node: NodeProto) -> list[NodeProto]:
        """What takes the place of a product; the last node gives its output."""
        part, form = self._beside(node), self._form
        value, found = node.input[0], []
        for plane in form.planes:
            zero = self._floats(plane) if self._decodes(plane) else self._zero(plane)
            about = {"K": self._columns, "N": self._rows, "bits": plane.bits, "block_size": form.block}
            level = {"accuracy_level": form.level} if form.level else {}
            inputs = [value, self._codes(plane), self._scale(plane), zero]
            found.append(part.node("MatMulNBits", inputs, {"domain": DOMAIN, **about, **level}))
        result = found[0] if len(found) == 1 else part.node("Add", found)
        if form.rest is not None and not self._decodes(form.planes[0]):
            turned = self._once("rest.turned", lambda at: _turned(at, self._rest()))
            off = part.node("MatMul", [part.node("MatMul", [value, self._groups()]), turned])
            result = part.node("Sub", [result, off])
        if self._adapter is not None:
            right, left, _ = self._factors(self._adapter)
            result = part.node("Add", [result, part.node("MatMul", [part.node("MatMul", [value, right]), left])])
        if node.op_type == "Gemm" and len(node.input) == 3:
            part.node("Add", [result, node.input[2]])
        part.nodes[-1].output[0] = node.output[0]
        return part.nodes

    def _decodes(self, plane: _Plane) -> bool:
        """Whether onnxruntime decodes the codes in each run, which it does faster with zero points that are floats."""
        return plane.bits == 2 and self._form.level != _IN_INTEGERS

    def gathered(self, node: NodeProto) -> list[NodeProto]:
        """What takes the place of looking up rows."""
        part = self._beside(node)
        rows, found = node.input[1], []
        for plane in self._form.planes:
            sizes = (self._rows, self._columns * plane.bits // 8)
            codes = self._once(f"{plane.name}.rows", lambda at, of=plane, to=sizes: at.reshape(self._codes(of), to))
            about = {"bits": plane.bits, "block_size": self._form.block, "gather_axis": 0, "quantize_axis": 1}
            inputs = [codes, rows, self._scale(plane), self._zero(plane)]
            found.append(part.node("GatherBlockQuantized", inputs, {"domain": DOMAIN, **about}))
        result = found[0] if len(found) == 1 else part.node("Add", found)
        if self._form.rest is not None:
            spread = self._once("groups.turned", lambda at: _turned(at, self._groups()))
            off = part.node("Gather", [self._rest(), rows], {"axis": 0})
            result = part.node("Sub", [result, part.node("MatMul", [off, spread])])
        if self._adapter is not None:
            _, left, right = self._factors(self._adapter)
            held = part.node("Gather", [self._once("left.turned", lambda at: _turned(at, left)), rows], {"axis": 0})
            part.node("Add", [result, part.node("MatMul", [held, right])])
        part.nodes[-1].output[0] = node.output[0]
        return part.nodes

    def _beside(self, node: NodeProto) -> Part:
        return replace(self._part, nodes=[], values=f"{node.output[0]}.p")

    def _once(self, name: str, make: Callable[[Part], str]) -> str:
        if name not in self._made:
            self._made[name] = make(self._part)
        return self._made[name]

    def _codes(self, plane: _Plane) -> str:
        """``(R, B, bytes)``, filled up to whole blocks."""
        wide = F.pad(plane.codes, (0, self._blocks * self._form.block - self._columns)).numpy()
        held = _packed(wide, plane.bits).reshape(self._rows, self._blocks, -1)
        return self._once(plane.name, lambda at: at.constant(plane.name, held))

    def _scale(self, plane: _Plane) -> str:
        """``(R, B)``; one for a whole row is kept once in the file."""
        return self._once(f"{plane.name}.scale", lambda at: self._spread(at, f"{plane.name}.scale", plane.scale))

    def _zero(self, plane: _Plane) -> str:
        """Packed like codes, ``(R, bytes)``."""
        name, per = f"{plane.name}.zero", 8 // plane.bits
        wide = self._in_blocks(plane.zero)
        if plane.zero.shape[1] == 1:
            wide = wide.expand(self._rows, per)  # a byte
        held = _packed(F.pad(wide, (0, -wide.shape[1] % per)).numpy(), plane.bits)
        sizes = (self._rows, -(-self._blocks // per))
        return self._once(name, lambda at: _expanded(at, at.constant(name, held), held.shape, sizes))

    def _floats(self, plane: _Plane) -> str:
        """Zero points as floats ``(R, B)``, halves with them."""
        name = f"{plane.name}.zero_as_float"
        rest = 0 if self._form.rest is None else self._form.rest / plane.scale
        return self._once(name, lambda at: self._spread(at, name, plane.zero + rest))

    def _rest(self) -> str:
        assert self._form.rest is not None
        held = self._form.rest.numpy()
        return self._once("rest", lambda at: at.constant("rest", held))

    def _groups(self) -> str:
        """``(C, G)``: which columns are of which group."""
        assert self._form.rest is not None
        count = self._form.rest.shape[1]
        ones = np.repeat(np.eye(count, dtype=np.float32), self._columns // count, axis=0)
        return self._once("groups", lambda at: at.shared(f"groups_{self._columns}x{count}", ones))

    def _factors(self, adapter: CodedLowRank) -> tuple[str, str, str]:
        """``(C, r)``, ``(r, R)`` and ``(r, C)``."""
        sides = {name: stored_weight(getattr(adapter, name), DENSE_KINDS) for name in ("right", "left")}
        right, left = (
            self._once(name, lambda at, of=of, name=name: matrix_values(replace(at, layer=f"{at.layer}.{name}"), of))
            for name, of in sides.items()
        )
        return self._once("right.turned", lambda at: _turned(at, right)), left, right

    def _spread(self, part: Part, name: str, values: Tensor) -> str:
        held = self._in_blocks(values).numpy()
        return _expanded(part, part.constant(name, held), held.shape, (self._rows, self._blocks))

    def _in_blocks(self, values: Tensor) -> Tensor:
        """``(R, G)`` as ``(R, B)``; ``(R, 1)`` stays."""
        groups = values.shape[1]
        if groups == 1:
            return values
        return values.repeat_interleave(-(-self._columns // groups) // self._form.block, 1)[:, : self._blocks]


def _expanded(part: Part, value: str, shape: Sequence[int], sizes: Sequence[int]) -> str:
    return value if tuple(shape) == tuple(sizes) else part.node("Expand", [value, part.shape(sizes)])


def _turned(part: Part, value: str) -> str:
    return part.node("Transpose", [value], {"perm": [1, 0]})


def _packed(numbers: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Numbers along the last axis as bytes, the first in the lowest bits."""
    apart = numbers.astype(np.uint8).reshape(*numbers.shape[:-1], -1, 8 // bits)
    return np.bitwise_or.reduce(apart << np.arange(0, 8, bits, dtype=np.uint8), axis=-1)
