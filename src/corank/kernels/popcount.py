"""Products of signs by xor and popcount: sixty-four of them in one word (XNOR-Net, arXiv 1603.05279, section 3.2).

``N`` samples, ``R`` rows, ``C`` columns. With bits for signs, ``sign(x) . sign(w) = C - 2 popcount(x xor w)``: whole
numbers, the same by every way below.
"""

from __future__ import annotations

import ctypes
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from corank.errors import ConfigError, CorankWarning
from corank.kernels.build import NotBuiltError, built

__all__ = ["INSTRUCTIONS", "PackedSigns", "instructions", "pack_signs", "sign_linear", "sign_product"]

INSTRUCTIONS = ("scalar", "popcnt", "avx2", "avx512")
"""What the kernel counts by, the best that the processor has; "torch" without a compiler."""
_BEST = len(INSTRUCTIONS)
_ROWS = 8  # side by side, as in popcount.cpp
_MOST_COLUMNS = 1 << 24  # whose sums float32 holds exactly


@dataclass(frozen=True)
class PackedSigns:
    """A weight ``(R, C)`` of signs, one bit each.

    Attributes:
        words: int64 ``(ceil(R / 8), ceil(C / 64), 8)``: the words of eight rows side by side, the first column in the
            lowest bit, 1 for plus; zeros beyond the last row and column.
        rows, columns: R and C.
    """

    words: Tensor
    rows: int
    columns: int

    def unpacked(self) -> Tensor:
        """The signs ``(R, C)``, float32: minus or plus one."""
        bits = (self.words.unsqueeze(-1) >> torch.arange(64, dtype=torch.int64, device=self.words.device)) & 1
        whole = bits.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
        return whole[: self.rows, : self.columns].float().mul_(2).sub_(1)


def pack_signs(positive: Tensor) -> PackedSigns:
    """Packs signs.

    Args:
        positive: bool ``(R, C)``, C below 2 ** 24: true for plus one, false for minus one.

    Raises:
        ConfigError: for other shapes or dtypes.
    """
    if positive.dim() != 2 or positive.dtype != torch.bool or not 0 < positive.shape[1] < _MOST_COLUMNS:
        raise ConfigError(f"{positive.dtype} of shape {tuple(positive.shape)}: bool (rows, columns), e.g. weight >= 0")
    rows, columns = positive.shape
    padded = F.pad(positive.long(), (0, -columns % 64, 0, -rows % _ROWS))
    bits = padded.reshape(-1, _ROWS, padded.shape[1] // 64, 64)
    # Each bit stands in one word alone, so the sum is their or; that of the highest bit is the sign's.
    words = (bits << torch.arange(64, dtype=torch.int64, device=bits.device)).sum(-1)
    return PackedSigns(words.transpose(1, 2).contiguous(), rows, columns)


def sign_product(inputs: Tensor, weight: PackedSigns, shift: Tensor | None = None, level: int = _BEST) -> Tensor:
    """``sign(inputs - shift) @ sign(weight).T``, with ``sign(0) = +1``.

    Args:
        inputs: ``(N, C)``, of any float dtype.
        weight: on the same device.
        shift: one number for each column ``(C,)``, or one for all ``(1,)``; None for zero.
        level: the index in :data:`INSTRUCTIONS` of the best that may be used.

    Returns:
        int32 ``(N, R)``.

    Raises:
        ConfigError: for shapes that do not fit.
    """
    inputs, shift = _checked(inputs, weight, shift)
    library = _library() if inputs.device.type == "cpu" else None
    if library is None:
        return _signs(inputs, shift).matmul(weight.unpacked().T).to(torch.int32)
    found = torch.empty(len(inputs), weight.rows, dtype=torch.int32, device=inputs.device)
    _multiply(library, level, (inputs, shift, weight), (found, None, None, None))
    return found


def sign_linear(
    inputs: Tensor, weight: PackedSigns, factor: Tensor, bias: Tensor | None = None, shift: Tensor | None = None
) -> Tensor:
    """``sign_product(inputs, weight, shift) * factor + bias``, in one call.

    Args:
        inputs, weight, shift: see :func:`sign_product`.
        factor: float32 ``(R,)``: of each row, such as the scale of its weights times the step of the inputs.
        bias: float32 ``(R,)``; None for none.

    Returns:
        float32 ``(N, R)``: the whole number as float32 times the factor, rounded, plus the bias, rounded.

    Raises:
        ConfigError: for shapes that do not fit.
    """
    inputs, shift = _checked(inputs, weight, shift)
    for one in (factor, bias):
        if one is not None and (one.shape != (weight.rows,) or one.dtype != torch.float32 or not one.is_contiguous()):
            raise ConfigError(f"{one.dtype} of shape {tuple(one.shape)}: float32 ({weight.rows},), one for each row")
    library = _library() if inputs.device.type == "cpu" else None
    if library is None:
        found = _signs(inputs, shift).matmul(weight.unpacked().T) * factor
        return found if bias is None else found + bias
    found = torch.empty(len(inputs), weight.rows, dtype=torch.float32, device=inputs.device)
    _multiply(library, _BEST, (inputs, shift, weight), (None, factor, bias, found))
    return found


def instructions() -> str:
    """What products are counted by here: one of :data:`INSTRUCTIONS`, or "torch"."""
    library = _library()
    return "torch" if library is None else INSTRUCTIONS[library.corank_level()]


def _checked(inputs: Tensor, weight: PackedSigns, shift: Tensor | None) -> tuple[Tensor, Tensor]:
    if inputs.dim() != 2 or inputs.shape[1] != weight.columns:
        raise ConfigError(
            f"inputs of shape {tuple(inputs.shape)}: (samples, {weight.columns}), as the weight's columns"
        )
    if weight.words.shape != (-(-weight.rows // _ROWS), -(-weight.columns // 64), _ROWS):
        raise ConfigError(f"words of shape {tuple(weight.words.shape)} of {weight.rows} rows; pack_signs gives them")
    if shift is None:
        shift = torch.zeros(1, dtype=torch.float32, device=inputs.device)
    if shift.shape not in ((1,), (weight.columns,)):
        raise ConfigError(f"a shift of shape {tuple(shift.shape)}: ({weight.columns},), or (1,) for all columns")
    return _plain(inputs), _plain(shift)


def _plain(value: Tensor) -> Tensor:
    if value.dtype != torch.float32:
        value = value.detach().float()
    return value if value.is_contiguous() else value.detach().contiguous()


def _signs(inputs: Tensor, shift: Tensor) -> Tensor:
    return (inputs >= shift).float().mul_(2).sub_(1)


def _multiply(
    library: ctypes.CDLL, level: int, given: tuple[Tensor, Tensor, PackedSigns], wanted: tuple[Tensor | None, ...]
) -> None:
    """Packs the inputs, and counts: into the whole numbers, or by factor and bias into the last."""
    inputs, shift, weight = given
    samples, columns = inputs.shape
    packed = torch.empty(samples * -(-columns // 64), dtype=torch.int64, device=inputs.device)
    library.corank_pack(inputs.data_ptr(), shift.data_ptr(), shift.numel(), samples, columns, level, packed.data_ptr())
    counts, factor, bias, output = (None if one is None else one.data_ptr() for one in wanted)
    library.corank_product(
        packed.data_ptr(), weight.words.data_ptr(), samples, columns, weight.rows, level, counts, factor, bias, output
    )


@cache
def _library() -> ctypes.CDLL | None:
    """The kernel; None, said once, where it cannot be had."""
    try:
        library = built(Path(__file__).with_name("popcount.cpp"))
        return _declared(library)
    except NotBuiltError as error:
        warnings.warn(
            f"products of signs go without popcount: {error}; PyTorch gives the same numbers, slowly. The "
            "kernel needs g++ or clang++, and a cache folder that can be written to (XDG_CACHE_HOME)",
            CorankWarning,
            stacklevel=3,
        )
        return None


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, size, level = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.corank_level.argtypes, library.corank_level.restype = (), level
    library.corank_pack.argtypes = (pointer, pointer, size, size, size, level, pointer)
    library.corank_pack.restype = None
    library.corank_product.argtypes = (pointer, pointer, size, size, size, level, pointer, pointer, pointer, pointer)
    library.corank_product.restype = None
    return library
