"""A coded weight as other runtimes can keep it: whole numbers with scales, or indices into a table.

Shapes: ``R`` rows, ``C`` columns, ``G`` groups of columns, ``L`` levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from corank.codecs import Codebook, OutlierCodebook, ScalarCodebook
from corank.coded_weight import CodedWeight
from corank.errors import ModelError

__all__ = ["Kind", "StoredWeight", "stored_weight"]

Kind = tuple[int, bool]  # bits of a number, and whether it is signed

_PARTS = (1, 2, 4)  # of the smallest gap between levels, tried as the unit of whole numbers
_MOST = 256  # whole numbers that the widest kind holds
_CLOSE = 1e-6  # relative, float32


@dataclass(frozen=True)
class StoredWeight:
    """``weight = scale * (n - zero)``, where ``n`` is the code, or ``table[code]`` where there is a table.

    Attributes:
        codes: ``(R, C)`` int16, each within ``bits`` bits.
        bits: that the target keeps a code in.
        signed: codes (and zeros) from ``-2 ** (bits - 1)``, not from 0.
        scale: ``(R, G)`` float32, or ``(1, 1)``.
        group_size: columns that share a scale.
        zero: like ``scale``, or ``(1, 1)``, float32; None for zeros.
        table: ``(L,)`` float32, or ``(R, L)``, one for each row; None where codes are the numbers themselves.
    """

    codes: Tensor
    bits: int
    signed: bool
    scale: Tensor
    group_size: int
    zero: Tensor | None = None
    table: Tensor | None = None

    @property
    def is_affine(self) -> bool:
        """Codes are the numbers and zero points are of their type: what ``DequantizeLinear`` reads."""
        return self.table is None and (self.zero is None or _is_whole(self.zero))

    def decode(self) -> Tensor:
        """The weight ``(R, C)`` float32."""
        numbers = self._numbers()
        if self.zero is not None:
            numbers = numbers - self._spread(self.zero)
        return self._spread(self.scale) * numbers

    @property
    def size_bits(self) -> int:
        """Bits in the target, names and frame aside: scales at 16, levels at 32, zero points at 16 or like codes."""
        beside = self.scale.numel() * 16
        beside += 0 if self.table is None else self.table.numel() * 32
        beside += 0 if self.zero is None else self.zero.numel() * (self.bits if self.is_affine else 16)
        return self.codes.numel() * self.bits + beside

    def _numbers(self) -> Tensor:
        if self.table is None:
            return self.codes.float()
        if self.table.dim() == 1:
            return self.table[self.codes.long()]
        return self.table.gather(1, self.codes.long())

    def _spread(self, values: Tensor) -> Tensor:
        if values.shape[1] in (1, self.codes.shape[1]):
            return values
        return values.repeat_interleave(self.group_size, dim=1)[:, : self.codes.shape[1]]


def stored_weight(coded: CodedWeight, kinds: Sequence[Kind]) -> StoredWeight:
    """The smallest form of a coded weight, equal to it to float32 rounding.

    Levels that are whole multiples of a unit (all uniform codecs, ternary, binary, short powers of two) become whole
    numbers. A zero point between them, as with ``Uniform(half=True)``, is kept as a float, unless the numbers can be
    doubled for less. Other levels become a table, and so do the values of a row where a codebook is of another kind.

    Args:
        coded: codes ``(R, C)`` and codebook.
        kinds: types of numbers that the target has, narrow ones first.

    Raises:
        ModelError: for a codebook of an unknown kind with more than 256 values in a row.
    """
    if isinstance(coded.codebook, OutlierCodebook) and coded.codebook.code_bits < 8:  # no target keeps an index
        coded = CodedWeight(*coded.codebook.merged(coded.codes))
    codebook = coded.codebook
    if isinstance(codebook, ScalarCodebook):
        found = [*_whole(coded.codes, codebook, kinds), *_table(coded.codes, codebook, kinds)]
    else:
        found = [*_probed(coded.codes, codebook, kinds), *_by_value(coded.decode(), kinds)]
    # The last word on every form: what a form was made of may fit and its rounded numbers not.
    expected = coded.decode()
    found = [form for form in found if torch.allclose(form.decode(), expected, rtol=_CLOSE, atol=0)]
    if not found:
        widths = ", ".join(str(bits) for bits in sorted({bits for bits, _ in kinds}))
        raise ModelError(
            f"the values of a {type(codebook).__name__} cannot be kept in {widths} bits with a scale or a table for "
            "each row; quantize these layers with corank.Uniform to export them"
        )
    # Of equal ones the first: whole numbers stand before tables.
    return min(found, key=lambda form: form.size_bits)


def _whole(codes: Tensor, codebook: ScalarCodebook, kinds: Sequence[Kind]) -> Iterator[StoredWeight]:
    """As whole numbers, where all levels are multiples of a unit."""
    # In float64 quotients of float32 levels that are whole come out whole.
    levels, offset = codebook.levels.double(), codebook.offset.double()
    smallest = float((levels[1:] - levels[:-1]).min()) if len(levels) > 1 else 1.0
    # Repeated levels have no gap, and a range of 256 gaps has no type: a table then.
    if smallest <= 0 or float(levels[-1] - levels[0]) / smallest >= _MOST:
        return
    for part in _PARTS:
        unit = smallest / part
        # scale (level - offset) = scale unit (n - zero): counted from the least level, no number is negative.
        numbers, zero = (levels - levels[0]) / unit, (offset - levels[0]) / unit
        if not _is_whole(numbers):
            continue
        form = StoredWeight(
            codes=numbers.to(torch.int16)[codes.long()],
            bits=0,
            signed=False,
            scale=(codebook.scale.double() * unit).float(),
            group_size=codebook.group_size,
        )
        # A finer unit can make the zero point whole where this one does not; sizes decide which of both is taken.
        if _is_whole(zero):
            yield from _with_zero(form, int(numbers[-1]), zero, kinds)
        else:
            yield from _fitted(replace(form, zero=_joined(zero.float())), 0, int(numbers[-1]), kinds)


def _with_zero(form: StoredWeight, top: int, zero: Tensor, kinds: Sequence[Kind]) -> Iterator[StoredWeight]:
    """With zero points of the codes' type; taken into signed codes where it is one for all and they fit."""
    first = int(zero.reshape(-1)[0])
    if bool((zero == first).all()):
        yield from _fitted(replace(form, codes=form.codes - first), -first, top - first, kinds)
        yield from _fitted(replace(form, zero=_joined(zero.float())), 0, top, kinds)
    # Zero points are kept in the codes' type, so the type must hold both.
    low, high = min(0, int(zero.min())), max(top, int(zero.max()))
    yield from _fitted(replace(form, codes=form.codes - low, zero=(zero - low).float()), 0, high - low, kinds)


def _joined(zero: Tensor) -> Tensor:
    """``(1, 1)`` where all zero points are one."""
    return zero[:1, :1] if bool((zero == zero[0, 0]).all()) else zero


def _fitted(form: StoredWeight, low: int, high: int, kinds: Sequence[Kind]) -> Iterator[StoredWeight]:
    """In the narrowest kind that holds numbers from ``low`` to ``high``, if there is one."""
    for bits, signed in kinds:
        # Kinds are in order of width: the first that holds all numbers is the narrowest.
        least = -(1 << (bits - 1)) if signed else 0
        if least <= low and high < least + (1 << bits):
            yield replace(form, bits=bits, signed=signed)
            return


def _table(codes: Tensor, codebook: ScalarCodebook, kinds: Sequence[Kind]) -> Iterator[StoredWeight]:
    """As indices into the table of levels, which any levels allow."""
    offset = codebook.offset
    form = StoredWeight(
        codes=codes.to(torch.int16),
        bits=0,
        signed=False,
        scale=codebook.scale,
        group_size=codebook.group_size,
        table=codebook.levels,
    )
    # An offset that all share goes into the table, and takes no subtraction.
    if bool((offset == offset[0, 0]).all()):
        form = replace(form, table=codebook.levels - offset[0, 0])
    else:
        form = replace(form, zero=offset)
    yield from _fitted(form, 0, len(codebook.levels) - 1, kinds)


def _probed(codes: Tensor, codebook: Codebook, kinds: Sequence[Kind]) -> Iterator[StoredWeight]:
    """A table for each row, found by asking for the value of every code."""
    columns = []
    for code in range(1 << codebook.code_bits):
        value = _value_of(codebook, codes, code)
        if value is None:
            break
        columns.append(value)
    # Asking ended before the largest code that occurs: the table would not hold it.
    if len(columns) <= int(codes.max()):
        return
    table = torch.stack(columns, dim=1)
    if bool((table == table[:1]).all()):
        table = table[0]
    one = torch.ones(1, 1, dtype=torch.float32)
    form = StoredWeight(codes.to(torch.int16), 0, False, one, codes.shape[1], table=table)
    yield from _fitted(form, 0, len(columns) - 1, kinds)


def _by_value(weight: Tensor, kinds: Sequence[Kind]) -> Iterator[StoredWeight]:
    """A table of the values that each row takes, whatever decides which weight takes which."""
    taken = [row.unique(return_inverse=True) for row in weight]
    longest = max(len(values) for values, _ in taken)
    if longest > _MOST:
        return
    # No code leads to what fills up a row.
    table = torch.stack([torch.nn.functional.pad(values, (0, longest - len(values))) for values, _ in taken])
    codes = torch.stack([places for _, places in taken]).to(torch.int16)
    form = StoredWeight(codes, 0, False, torch.ones(1, 1, dtype=torch.float32), weight.shape[1], table=table)
    yield from _fitted(form, 0, longest - 1, kinds)


def _value_of(codebook: Codebook, codes: Tensor, code: int) -> Tensor | None:
    """``(R,)`` values of a code, None where there is none or where the columns of a row differ."""
    try:
        values = codebook.values(torch.full_like(codes, code))
    except (IndexError, RuntimeError):
        return None
    return values[:, 0].float() if bool((values == values[:, :1]).all()) else None


def _is_whole(values: Tensor) -> bool:
    return bool((values == values.round()).all())
