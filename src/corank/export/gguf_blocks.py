"""A coded weight as the blocks of ggml's types, its codes as they are: nothing is quantized anew.

Shapes: ``R`` rows, ``C`` columns, ``B`` blocks of a row. A block holds 32 columns, 256 in the ternary types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corank.export.stored import Kind, StoredWeight

__all__ = ["BLOCK_TYPES", "KINDS", "BlockType", "Blocks", "blocks_of"]

Bytes = NDArray[Any]  # uint8
KINDS: tuple[Kind, ...] = (*((bits, False) for bits in range(1, 9)), (8, True))
_DIGITS = np.array([81, 27, 9, 3, 1], dtype=np.uint16)


@dataclass(frozen=True)
class BlockType:
    """One of ggml's types: ``scale * number``, or ``scale * number + least``.

    Attributes:
        columns: of a block.
        low, high: the numbers it holds.
        has_least: each block has a least value beside its scale, and numbers count from there.
        pack: numbers less ``low`` ``(R, B, columns)`` uint8, fp16 scales ``(R, B, 2)`` and least values as bytes, to
            ``(R, B, n)``.
    """

    columns: int
    low: int
    high: int
    has_least: bool
    pack: Callable[[Bytes, Bytes, Bytes], Bytes]


@dataclass(frozen=True)
class Blocks:
    """A weight in ggml's blocks.

    Attributes:
        type: its name there.
        data: ``(R, n)`` uint8.
        exact: its values are the codes' own; otherwise the least value of a block is rounded to fp16.
    """

    type: str
    data: Bytes
    exact: bool


def blocks_of(stored: StoredWeight, types: Sequence[str], exact: bool = False) -> Blocks | str:
    """The first of these types that holds the codes, or the reason why none does.

    Args:
        stored: of :func:`~corank.export.stored.stored_weight` with :data:`KINDS`.
        types: names of :data:`BLOCK_TYPES`, those wanted most first.
        exact: only types whose values are the codes' own.
    """
    columns = stored.codes.shape[1]
    if stored.table is not None:
        return "its levels are not equally spaced"
    reason = f"its {columns} columns are no multiple of a block of 32"
    for name in types:
        kind = BLOCK_TYPES[name]
        if columns % kind.columns:
            continue
        if stored.scale.shape[1] > 1 and stored.group_size % kind.columns:
            reason = f"its groups of {stored.group_size} columns are no multiple of a block of {kind.columns}"
            continue
        found = _blocks(name, stored, columns // kind.columns)
        if found is not None and (found.exact or not exact):
            return found
        reason = f"no type of {', '.join(types)} holds its numbers and zero points"
    return reason


def _blocks(name: str, stored: StoredWeight, count: int) -> Blocks | None:
    kind = BLOCK_TYPES[name]
    zero = torch.zeros(1, 1, dtype=torch.float32) if stored.zero is None else stored.zero
    numbers, scale = stored.codes.float(), stored.scale
    least = torch.zeros_like(scale)
    if kind.has_least:
        first = float(numbers.min())  # counted from the least code, so that signed ones fit, too
        numbers, least = numbers - first, -scale * (zero - first)
    else:
        unit = 1 if bool((zero == zero.round()).all()) else 2  # zero points midway become whole
        numbers, scale = unit * (numbers - _by_column(zero, stored)), scale / unit
    if float(numbers.min()) < kind.low or float(numbers.max()) > kind.high or bool((numbers != numbers.round()).any()):
        return None
    scales, leasts = _halves(scale, stored, count), _halves(least, stored, count)
    if scales is None or leasts is None:
        return None
    rows = len(stored.codes)
    shifted = (numbers - kind.low).to(torch.uint8).reshape(rows, count, kind.columns).numpy()
    data = kind.pack(shifted, _bytes(scales), _bytes(leasts)).reshape(rows, -1)
    exact = bool((scales.float() == _by_block(scale, stored, count)).all())
    # The product of two fp16 numbers seldom is one; a weight of scale * (number - zero) then moves by its rounding.
    exact = exact and bool((leasts.float() == _by_block(least, stored, count)).all())
    return Blocks(name, np.ascontiguousarray(data), exact) if exact or kind.has_least else None


def _by_column(values: Tensor, stored: StoredWeight) -> Tensor:
    """``(R, G)`` as it broadcasts to ``(R, C)``."""
    if values.shape[1] == 1:
        return values
    return values.repeat_interleave(stored.group_size, dim=1)[:, : stored.codes.shape[1]]


def _by_block(values: Tensor, stored: StoredWeight, count: int) -> Tensor:
    """``(R, G)`` or ``(1, 1)`` as ``(R, B)``."""
    rows, columns = stored.codes.shape
    if values.shape[1] > 1:
        values = values.repeat_interleave(stored.group_size // (columns // count), dim=1)[:, :count]
    return values.expand(rows, count)


def _halves(values: Tensor, stored: StoredWeight, count: int) -> Tensor | None:
    """``(R, B)`` fp16; None where one is too large for it."""
    halves = _by_block(values, stored, count).half()
    return halves if bool(halves.isfinite().all()) else None


def _bytes(halves: Tensor) -> Bytes:
    return np.ascontiguousarray(halves.numpy())[..., None].view(np.uint8)


def _nibbles(numbers: Bytes) -> Bytes:
    """The first sixteen numbers of a block in the low halves of its bytes, the others in the high ones."""
    return numbers[..., :16] & 15 | (numbers[..., 16:] & 15) << 4


def _fifth_bits(numbers: Bytes) -> Bytes:
    return np.packbits(numbers >> 4, axis=-1, bitorder="little")


def _four(numbers: Bytes, scale: Bytes, least: Bytes) -> Bytes:
    return np.concatenate([scale, _nibbles(numbers)], axis=-1)


def _four_from_least(numbers: Bytes, scale: Bytes, least: Bytes) -> Bytes:
    return np.concatenate([scale, least, _nibbles(numbers)], axis=-1)


def _five(numbers: Bytes, scale: Bytes, least: Bytes) -> Bytes:
    return np.concatenate([scale, _fifth_bits(numbers), _nibbles(numbers)], axis=-1)


def _five_from_least(numbers: Bytes, scale: Bytes, least: Bytes) -> Bytes:
    return np.concatenate([scale, least, _fifth_bits(numbers), _nibbles(numbers)], axis=-1)


def _eight(numbers: Bytes, scale: Bytes, least: Bytes) -> Bytes:
    return np.concatenate([scale, numbers ^ 128], axis=-1)  # two's complement of the number less 128


def _ternary_in_bits(numbers: Bytes, scale: Bytes, least: Bytes) -> Bytes:
    """TQ2_0: four runs of 32 numbers in the four places of 32 bytes, twice."""
    runs = numbers.reshape(*numbers.shape[:-1], 2, 4, 32)
    packed = runs[..., 0, :] | runs[..., 1, :] << 2 | runs[..., 2, :] << 4 | runs[..., 3, :] << 6
    return np.concatenate([packed.reshape(*numbers.shape[:-1], 64), scale], axis=-1)


def _ternary_in_digits(numbers: Bytes, scale: Bytes, least: Bytes) -> Bytes:
    """TQ1_0: five numbers in a byte as a fraction of base 3, so that a multiplication by 3 gives the next digit.

    32 bytes of 160 numbers, 16 of 80 and 4 of the last 16, which are four in a byte.
    """
    parts = []
    for begin, digits, run in ((0, 5, 32), (160, 5, 16), (240, 4, 4)):
        part = numbers[..., begin : begin + digits * run].reshape(*numbers.shape[:-1], digits, run)
        whole = (part.astype(np.uint16) * _DIGITS[:digits, None]).sum(axis=-2)
        parts.append(((whole * 256 + 242) // 243).astype(np.uint8))
    return np.concatenate([*parts, scale], axis=-1)


BLOCK_TYPES: dict[str, BlockType] = {
    "TQ1_0": BlockType(256, -1, 1, False, _ternary_in_digits),
    "TQ2_0": BlockType(256, -1, 1, False, _ternary_in_bits),
    "Q4_0": BlockType(32, -8, 7, False, _four),
    "Q4_1": BlockType(32, 0, 15, True, _four_from_least),
    "Q5_0": BlockType(32, -16, 15, False, _five),
    "Q5_1": BlockType(32, 0, 31, True, _five_from_least),
    "Q8_0": BlockType(32, -128, 127, False, _eight),
}
