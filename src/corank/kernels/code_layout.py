"""How codes stand in memory for the kernel of :mod:`corank.kernels.codebook`: ``bits`` bits each.

``R`` rows, ``C`` columns. Sixteen lanes take the columns of a row in turn, each a string of bits with its codes in
order, the first in the lowest. Strings are cut into words of 32 bits, and the words of the lanes stand side by side. A
*tile* is the fewest words that hold whole codes; of the last one the bytes in use are kept, byte after byte for all
lanes. So a row takes ``C * bits / 8`` bytes where ``C`` is a multiple of 128, and up to 16 more than that elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LANES", "SPARE_BYTES", "laid_out", "row_bytes", "rows_laid_out"]

LANES = 16
SPARE_BYTES = 64  # behind the last row, which a load may reach into
_WEIGHTS_AT_ONCE = 1 << 21  # laid out together: codes take four bytes meanwhile


def _words(bits: int) -> int:
    """Words of a tile, of each lane."""
    return {1: 1, 2: 1, 4: 1, 8: 1, 6: 3}.get(bits, bits)


def _codes(bits: int) -> int:
    """Codes of a tile, of each lane."""
    return 32 * _words(bits) // bits


def _planes(columns: int, bits: int) -> tuple[int, int]:
    """Whole tiles of a row, and the bytes of each lane behind them."""
    whole, left = divmod(columns, LANES * _codes(bits))
    return whole, (-(-left // LANES) * bits + 7) // 8


def row_bytes(columns: int, bits: int) -> int:
    """Bytes of one row."""
    whole, planes = _planes(columns, bits)
    return whole * 64 * _words(bits) + planes * LANES


def laid_out(codes: Tensor, bits: int) -> Tensor:
    """Codes ``(R, C)`` uint8, each below ``2 ** bits``, as flat bytes, :data:`SPARE_BYTES` of zeros behind them."""
    rows, columns = codes.shape
    each = row_bytes(columns, bits)
    found = torch.zeros(rows * each + SPARE_BYTES, dtype=torch.uint8, device=codes.device)
    view = found[: rows * each].view(rows, each)
    for begin, end in _spans(rows, columns):
        view[begin:end] = _rows_in(codes[begin:end], bits)
    return found


def rows_laid_out(packed: Tensor, index: Tensor, columns: int, bits: int) -> Tensor:
    """The codes ``(k, C)`` uint8 of the rows ``index`` ``(k,)`` of what :func:`laid_out` gave."""
    each, words, codes = row_bytes(columns, bits), _words(bits), _codes(bits)
    whole, planes = _planes(columns, bits)
    given = packed[: packed.numel() - SPARE_BYTES].view(-1, each)[index]
    size = whole * 64 * words
    tiles = given[:, :size].reshape(len(given), whole, words, LANES, 4)
    if planes:
        last = F.pad(given[:, size:].reshape(len(given), planes, LANES), (0, 0, 0, 4 * words - planes))
        last = last.reshape(len(given), 1, words, 4, LANES).transpose(3, 4)
        tiles = torch.cat([tiles, last], 1)
    lanes = tiles.contiguous().view(torch.int32).squeeze(-1).long() & 0xFFFFFFFF
    found = torch.empty(len(given), tiles.shape[1], codes, LANES, dtype=torch.uint8, device=packed.device)
    for code in range(codes):
        word, shift = divmod(code * bits, 32)
        value = lanes[:, :, word] >> shift
        if shift + bits > 32:
            value = value | lanes[:, :, word + 1] << (32 - shift)
        found[:, :, code] = (value & ((1 << bits) - 1)).to(torch.uint8)
    return found.flatten(1)[:, :columns]


def _rows_in(codes: Tensor, bits: int) -> Tensor:
    """Rows of codes as rows of bytes."""
    rows, columns = codes.shape
    words, count = _words(bits), _codes(bits)
    whole, planes = _planes(columns, bits)
    padded = F.pad(codes, (0, -columns % (LANES * count))).reshape(rows, -1, count, LANES)
    lanes = torch.zeros(rows, padded.shape[1], words, LANES, dtype=torch.int32, device=codes.device)
    for code in range(count):
        word, shift = divmod(code * bits, 32)
        value = padded[:, :, code].to(torch.int32)
        lanes[:, :, word] |= value << shift
        if shift + bits > 32:
            lanes[:, :, word + 1] |= value >> (32 - shift)
    tiles = lanes.unsqueeze(-1).view(torch.uint8)
    found = tiles[:, :whole].reshape(rows, -1)
    if not planes:
        return found
    last = tiles[:, whole].transpose(2, 3).reshape(rows, 4 * words, LANES)
    return torch.cat([found, last[:, :planes].reshape(rows, -1)], 1)


def _spans(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    step = max(1, _WEIGHTS_AT_ONCE // max(1, columns))
    for begin in range(0, rows, step):
        yield begin, min(rows, begin + step)
