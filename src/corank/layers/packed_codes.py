"""A coded weight as packed codes that are multiplied with as they are (see :mod:`corank.kernels.codebook`).

``R`` rows, ``C`` columns, ``G`` groups of columns, ``L`` levels, ``r`` rank, ``N`` inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.codecs import OutlierCodebook, RowLevels, ScalarCodebook
from corank.coded_weight import CodedWeight
from corank.errors import ModelError
from corank.kernels import PackedCodes, codebook_linear, codebook_rows, laid_out
from corank.layers.state import CodedLayerState

__all__ = ["PackedMatrix", "PackedWeight", "check_running", "linear", "packed_codes"]

_GROUPS = 32  # columns that a group of the kernel begins at a multiple of
_MOST = 256  # levels of a code of 8 bits


class _AsStored(nn.Module):
    """A module whose own buffers keep their dtype whatever a network is cast to."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _AsStored:
        # As bytes, what casts floats leaves them alone.
        held = {name: one for name, one in self._buffers.items() if one is not None}
        kinds = {name: one.dtype for name, one in held.items()}
        self._buffers.update({name: one.view(torch.uint8) for name, one in held.items()})
        try:
            super()._apply(fn, recurse)
        finally:
            moved = {name: cast(Tensor, self._buffers[name]) for name in held}
            self._buffers.update({name: one.view(kinds[name]) for name, one in moved.items()})
        return self


class PackedMatrix(_AsStored):
    """A weight ``(R, C)`` of packed codes."""

    codes: Tensor
    levels: Tensor
    scale: Tensor | None
    offset: Tensor | None

    def __init__(self, weight: PackedCodes) -> None:
        super().__init__()
        self.bits, self.shape, self.group_size = weight.bits, weight.shape, weight.group_size
        for name in ("codes", "levels", "scale", "offset"):
            self.register_buffer(name, getattr(weight, name))
        self._view: PackedCodes | None = None
        self.register_load_state_dict_post_hook(_forget)

    @property
    def weight(self) -> PackedCodes:
        """What the kernel takes."""
        if self._view is None or self._view.codes is not self.codes:
            self._view = PackedCodes(
                self.codes, self.bits, self.shape, self.levels, self.scale, self.offset, self.group_size
            )
        return self._view

    def forward(self, input: Tensor, bias: Tensor | None = None) -> Tensor:
        """``(N, C)`` to ``(N, R)``."""
        return codebook_linear(input, self.weight, bias)

    def rows(self, index: Tensor) -> Tensor:
        """Rows ``(k, C)`` float32 of numbers ``(k,)``."""
        return codebook_rows(self.weight, index)

    def extra_repr(self) -> str:
        return f"rows={self.shape[0]}, columns={self.shape[1]}, bits={self.bits}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_view": None}


def _forget(module: nn.Module, _incompatible: object) -> None:
    cast(PackedMatrix, module)._view = None  # which knows whether the levels are even


class PackedWeight(_AsStored):
    """Packed codes with a low-rank adapter beside them, which is two thin products.

    Args:
        code: of a layer of one group of channels.

    Raises:
        ModelError: for codes whose values do not fit, saying why.
    """

    codes: PackedMatrix
    left: PackedMatrix | None
    right: PackedMatrix | None
    directions: Tensor | None

    def __init__(self, code: CodedLayerState) -> None:
        super().__init__()
        self.codes = PackedMatrix(packed_codes(code.weight))
        self.left = self.right = None
        self.register_buffer("directions", None)
        if code.adapter is not None:
            left, right = code.adapter.left, code.adapter.right
            book = cast(ScalarCodebook, left.codebook)
            # Each direction's scale multiplies what the right factor gives, so that the left one is codes alone.
            scale = book.scale.expand(len(left.codes), 1).reshape(-1)
            self.register_buffer("directions", scale.clone())
            flat = CodedWeight(left.codes.T.contiguous(), ScalarCodebook(book.levels, *_plain(left), code.adapter.rank))
            self.left, self.right = PackedMatrix(packed_codes(flat)), PackedMatrix(packed_codes(right))

    def forward(self, input: Tensor, bias: Tensor | None = None) -> Tensor:
        """``(N, C)`` to ``(N, R)``, in the inputs' dtype."""
        found = self.codes(input, bias)
        if self.left is None or self.right is None or self.directions is None:
            return found
        return found.add_(self.left(self.right(input) * self.directions.to(input.dtype)))

    def rows(self, index: Tensor) -> Tensor:
        """Rows ``(k, C)`` float32 of numbers ``(k,)``."""
        found = self.codes.rows(index)
        if self.left is None or self.right is None or self.directions is None:
            return found
        right = self.right.rows(torch.arange(self.right.shape[0], device=index.device))
        return found.addmm_(self.left.rows(index) * self.directions.float(), right)

    @property
    def shape(self) -> tuple[int, int]:
        """R and C."""
        return self.codes.shape

    def composed(self) -> Tensor:
        """The whole weight ``(R, C)`` float32."""
        return self.rows(torch.arange(self.shape[0], device=self.codes.codes.device))


def packed_codes(coded: CodedWeight) -> PackedCodes:
    """A coded weight as the kernel takes it, at the fewest bits that hold the codes that occur.

    Args:
        coded: codes ``(R, C)`` with a scalar codebook, or one of each row (of outliers' levels and the others' both).

    Raises:
        ModelError: for another codebook, or groups that do not begin at multiples of 32 columns.
    """
    codes, book = coded.codes, coded.codebook
    if isinstance(book, OutlierCodebook) and book.code_bits < 8:
        codes, book = book.merged(codes)
    if not isinstance(book, (ScalarCodebook, RowLevels)) or book.size > _MOST:
        raise ModelError(f"values of a {type(book).__name__} are no levels and scales")
    codes = codes.clamp(max=book.size - 1)  # a file may hold any code
    low, high = (int(one) for one in codes.aminmax())
    bits = max(1, (high - low).bit_length())
    levels = _cut(book.levels, low, high, bits)
    packed, shape = laid_out(codes - low, bits), (codes.shape[0], codes.shape[1])
    if isinstance(book, RowLevels):
        return PackedCodes(packed, bits, shape, levels)
    many = book.scale.shape[1] > 1
    if many and book.group_size % _GROUPS:
        raise ModelError(f"groups of {book.group_size} columns do not begin at multiples of {_GROUPS}")
    offset = None if not book.offset_bits else _halves(book.offset, shape[0])
    if offset is not None and bool((offset == offset[0, 0]).all()):  # one for all goes into the levels
        levels, offset = levels - offset[0, 0].float(), None
    scale = None if book.scale_bits == 0 else _halves(book.scale, shape[0])
    return PackedCodes(packed, bits, shape, levels, scale, offset, book.group_size if many else 0)


def _plain(factor: CodedWeight) -> tuple[Tensor, Tensor]:
    """Scales of one and offsets of zero for a transposed factor."""
    one = factor.codebook.values(factor.codes[:1, :1]).new_ones(factor.codes.shape[1], 1)
    return one, torch.zeros_like(one)


def _halves(values: Tensor, rows: int) -> Tensor:
    """``(R, G)`` float16.

    Raises:
        ModelError: where they are not as float16 holds them.
    """
    halves = values.to(torch.float16)
    if not torch.equal(halves.float(), values.float()):
        raise ModelError("scales that float16 does not hold")
    return halves.expand(rows, -1).contiguous()


def _cut(levels: Tensor, low: int, high: int, bits: int) -> Tensor:
    """The levels ``(..., 2 ** bits)`` float32 of codes from ``low`` to ``high``; what no code has goes on evenly."""
    cut = levels[..., low : high + 1].float()
    spare = (1 << bits) - cut.shape[-1]
    if spare:
        step = cut[..., -1:] - cut[..., -2:-1] if cut.shape[-1] > 1 else torch.zeros_like(cut[..., -1:])
        further = torch.arange(1, spare + 1, dtype=torch.float32, device=cut.device)
        cut = torch.cat([cut, cut[..., -1:] + step * further], -1)
    return cut.contiguous()


def check_running() -> None:
    """Raises ModelError where a program is exported, which could not call the kernel."""
    if torch.compiler.is_exporting():
        raise ModelError("packed layers are for running; export the model that was packed, or corank.load(path, model)")


def linear(weight: PackedWeight, input: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear`` of inputs ``(..., C)``; where their gradient is wanted, by the weight as it is composed."""
    check_running()
    if torch.is_grad_enabled() and input.requires_grad:
        return F.linear(input, weight.composed().to(input.dtype), bias)
    if input.dim() == 2:
        return weight(input, bias)
    return weight(input.reshape(-1, weight.shape[1]), bias).reshape(*input.shape[:-1], weight.shape[0])
