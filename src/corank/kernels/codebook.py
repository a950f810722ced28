"""Products with a weight whose codes stay packed, at 1 to 8 bits, whatever values they stand for.

``N`` inputs, ``R`` rows, ``C`` columns, ``G`` groups of columns, ``L`` levels. The kernel is C++ that is built for the
bits and the processor when it is first used; on other devices, and without a compiler, PyTorch decodes some rows at a
time.
"""

from __future__ import annotations

import ctypes
import warnings
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import torch
from torch import Tensor

from corank.errors import ConfigError, CorankWarning
from corank.kernels.build import NotBuiltError, built
from corank.kernels.code_layout import LANES, SPARE_BYTES, row_bytes, rows_laid_out

__all__ = ["PackedCodes", "codebook_instructions", "codebook_linear", "codebook_rows"]

_GROUPS = 2 * LANES  # columns that a group begins at a multiple of
_LEAST_ROWS = 16  # of a weight that become floats together
_FEW_INPUTS = 64  # above, rows become floats some at a time, and the matrix product is PyTorch's
_ROWS_BYTES = 1 << 20  # of those floats: they stay in a core's own memory
_FLAGS = {
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
}


@dataclass(frozen=True)
class PackedCodes:
    """A weight ``(R, C)``: ``scale[row, group] * (level[code] - offset[row, group])``.

    Attributes:
        codes: of :func:`~corank.kernels.code_layout.laid_out`, uint8.
        bits: of one.
        shape: R and C.
        levels: ``(2 ** bits,)`` float32, or ``(R, 2 ** bits)`` where each row has its own.
        scale: ``(R, G)`` float16; None for ones.
        offset: ``(R, G)`` float16; None for zeros.
        group_size: columns that share a scale: a multiple of 32, or all.

    Raises:
        ConfigError: for tensors of another size, dtype or group.
    """

    codes: Tensor
    bits: int
    shape: tuple[int, int]
    levels: Tensor
    scale: Tensor | None = None
    offset: Tensor | None = None
    group_size: int = 0

    def __post_init__(self) -> None:
        (rows, columns), bits = self.shape, self.bits
        size = rows * row_bytes(columns, bits) + SPARE_BYTES
        if self.codes.shape != (size,) or self.codes.dtype != torch.uint8:
            raise ConfigError(f"codes of {self.codes.numel()} bytes: {rows} x {columns} of {bits} bits take {size}")
        if self.levels.shape not in ((1 << bits,), (rows, 1 << bits)) or self.levels.dtype != torch.float32:
            raise ConfigError(f"levels {tuple(self.levels.shape)} of {self.levels.dtype} for codes of {bits} bits")
        if self.groups > 1 and self.group_size % _GROUPS:
            raise ConfigError(f"groups of {self.group_size} columns: multiples of {_GROUPS}, or one group")
        for one in (self.scale, self.offset):
            if one is not None and (one.shape != (rows, self.groups) or one.dtype != torch.float16):
                raise ConfigError(f"{one.dtype} of shape {tuple(one.shape)}: float16 {(rows, self.groups)}")

    @property
    def groups(self) -> int:
        return 1 if self.group_size in (0, self.shape[1]) else -(-self.shape[1] // self.group_size)

    @property
    def size_bytes(self) -> int:
        """All that is kept."""
        kept = (self.codes, self.levels, self.scale, self.offset)
        return sum(one.numel() * one.element_size() for one in kept if one is not None)

    @cached_property
    def described(self) -> ctypes.Structure:
        """As the kernel takes it; its addresses are those of these tensors, which must be on the CPU."""
        levels, own = (None, self.levels) if self.levels.dim() == 2 else (self.levels, None)
        tensors = [
            None if one is None else one.data_ptr() for one in (self.codes, levels, own, self.scale, self.offset)
        ]
        rows, columns = self.shape
        sizes = (rows, columns, row_bytes(columns, self.bits), self.groups, self.group_size or columns, self.bits)
        first, step = _steps(self.levels)
        return _Described(*tensors, *sizes, step != 0, first, step)


class _Described(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("codes", "levels", "own", "scale", "offset")),
        *((name, ctypes.c_int64) for name in ("rows", "columns", "row_bytes", "groups", "group_size")),
        ("bits", ctypes.c_int32),
        ("uniform", ctypes.c_int32),
        ("first", ctypes.c_float),
        ("step", ctypes.c_float),
    )


def codebook_linear(inputs: Tensor, weight: PackedCodes, bias: Tensor | None = None) -> Tensor:
    """``inputs @ W.T + bias``, computed in float32.

    Args:
        inputs: ``(N, C)``, of any float dtype.
        weight: on the same device.
        bias: ``(R,)``; None for none.

    Returns:
        ``(N, R)`` in the inputs' dtype.

    Raises:
        ConfigError: for inputs of another width.
    """
    rows, columns = weight.shape
    if inputs.dim() != 2 or inputs.shape[1] != columns:
        raise ConfigError(f"inputs of shape {tuple(inputs.shape)}: (samples, {columns}), as the weight's columns")
    library = _library_of(weight)
    if library is None or len(inputs) > _FEW_INPUTS:
        return _by_rows(inputs, weight, bias)
    given = inputs.detach().to(torch.float32).contiguous()
    found = torch.empty(len(given), rows, dtype=torch.float32)
    added = None if bias is None else bias.detach().to(torch.float32).contiguous()
    library.corank_product(
        ctypes.byref(weight.described), given.data_ptr(), len(given), None if added is None else added.data_ptr(),
        found.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return found if inputs.dtype == torch.float32 else found.to(inputs.dtype)


def codebook_rows(weight: PackedCodes, index: Tensor, room: Tensor | None = None) -> Tensor:
    """Rows ``(k, C)`` float32 of numbers ``index`` ``(k,)``, each within the weight: as a layer composes them.

    Args:
        room: float32, contiguous, of at least as many rows: on the CPU it is written to.
    """
    library = _library_of(weight)
    if library is None:
        return _plain_rows(weight, index)
    given = index.to(torch.int64).contiguous()
    shape = len(given), weight.shape[1]
    found = torch.empty(shape, dtype=torch.float32) if room is None else room[: shape[0]]
    library.corank_rows(
        ctypes.byref(weight.described), given.data_ptr(), len(given), found.data_ptr(), torch.get_num_threads()
    )
    return found


def codebook_instructions() -> str:
    """What the kernel is built for here: "AVX512", "AVX2" or "plain"; "torch" where there is none."""
    return "torch" if _library(4, _capability()) is None else _capability()


def _by_rows(inputs: Tensor, weight: PackedCodes, bias: Tensor | None) -> Tensor:
    """Some rows at a time as floats, in the inputs' dtype."""
    rows, device = weight.shape[0], inputs.device
    step = max(_LEAST_ROWS, _ROWS_BYTES // (4 * weight.shape[1]) // LANES * LANES)
    room = torch.empty(min(step, rows), weight.shape[1], dtype=torch.float32, device=device)
    columns, found = inputs.T.contiguous(), torch.empty(rows, len(inputs), dtype=inputs.dtype, device=device)
    for begin in range(0, rows, step):
        end = min(rows, begin + step)
        part = codebook_rows(weight, torch.arange(begin, end, device=device), room)
        torch.mm(part.to(inputs.dtype), columns, out=found[begin:end])
    turned = found.T.contiguous()
    return turned if bias is None else turned.add_(bias.to(turned.dtype))


def _plain_rows(weight: PackedCodes, index: Tensor) -> Tensor:
    codes = rows_laid_out(weight.codes, index, weight.shape[1], weight.bits).long()
    own = weight.levels.dim() == 2
    found = weight.levels[index].gather(1, codes) if own else weight.levels[codes]
    for values, combine in ((weight.offset, torch.sub), (weight.scale, torch.mul)):
        if values is not None:
            spread = values[index].float()
            if weight.groups > 1:
                spread = spread.repeat_interleave(weight.group_size, dim=1)[:, : weight.shape[1]]
            found = combine(found, spread)
    return found


def _steps(levels: Tensor) -> tuple[float, float]:
    """The first level and the step where all steps are one, exactly; a step of zero where they are not."""
    if levels.dim() == 2 or len(levels) < 2:
        return 0.0, 0.0
    first, step = levels[0], levels[1] - levels[0]
    even = bool(step) and torch.equal(first + step * torch.arange(len(levels), device=levels.device), levels)
    return (float(first), float(step)) if even else (0.0, 0.0)


def _capability() -> str:
    found = torch.backends.cpu.get_cpu_capability()
    return found if found in _FLAGS else "plain"


def _library_of(weight: PackedCodes) -> ctypes.CDLL | None:
    return _library(weight.bits, _capability()) if weight.codes.device.type == "cpu" else None


@cache
def _library(bits: int, capability: str) -> ctypes.CDLL | None:
    """The kernel for so many bits and those instructions; None, said once, where it cannot be had."""
    flags = (f"-DCORANK_BITS={bits}", *_FLAGS.get(capability, ()))
    try:
        return _declared(built(Path(__file__).with_name("codebook.cpp"), flags, ("-fopenmp",)))
    except NotBuiltError as error:
        _say(str(error))
        return None


@cache
def _say(why: str) -> None:
    warnings.warn(
        f"packed layers go without their kernel: {why}; PyTorch gives the same numbers, slowly. The kernel needs g++ "
        "or clang++, and a cache folder that can be written to (XDG_CACHE_HOME)",
        CorankWarning,
        stacklevel=5,
    )


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.corank_product.argtypes = (pointer, pointer, size, pointer, pointer, number)
    library.corank_rows.argtypes = (pointer, pointer, size, pointer, number)
    library.corank_product.restype = library.corank_rows.restype = None
    return library
