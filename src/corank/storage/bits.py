"""Fixed-width codes, really packed: 3 bits are 3 bits."""

from __future__ import annotations

import torch
from torch import Tensor

from corank.errors import ArtifactError

__all__ = ["pack", "packed_bytes", "unpack", "unpack_at"]


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that ``count`` codes of ``bits`` bits take; a run of codes begins at a byte."""
    return (count * bits + 7) // 8


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes (any shape, uint8, each below ``2 ** bits``) as a flat uint8 tensor, most significant bit first."""
    flat = codes.detach().reshape(-1).to(torch.uint8)
    if bits == 8:
        return flat.clone()
    if flat.numel() and int(flat.max()) >= 1 << bits:
        raise ValueError(f"a code of {int(flat.max())} does not fit in {bits} bits")
    if 8 % bits == 0:
        return _packed_evenly(flat, bits)
    # Eight codes fill exactly `bits` bytes: pack each such run through one word.
    columns = _padded(flat, 8)
    words = torch.zeros(len(columns), dtype=_word(bits), device=flat.device)
    for place in range(8):
        words |= columns[:, place].to(words.dtype) << (7 - place) * bits
    packed = torch.empty((len(columns), bits), dtype=torch.uint8, device=flat.device)
    for place in range(bits):
        packed[:, place] = (words >> (bits - 1 - place) * 8) & 0xFF
    return packed.reshape(-1)[: packed_bytes(flat.numel(), bits)].clone()


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """The inverse of :func:`pack`: ``(count,)`` uint8.

    Raises:
        ArtifactError: when ``packed`` is not exactly as long as ``count`` codes take.
    """
    if packed.numel() != packed_bytes(count, bits):
        raise ArtifactError(
            f"{packed.numel()} bytes where {count} codes of {bits} bits take {packed_bytes(count, bits)}"
        )
    if bits == 8:
        return packed.clone()
    if 8 % bits == 0:
        return _unpacked_evenly(packed, bits, count)
    columns = _padded(packed, bits)
    words = torch.zeros(len(columns), dtype=_word(bits), device=packed.device)
    for place in range(bits):
        words |= columns[:, place].to(words.dtype) << (bits - 1 - place) * 8
    codes = torch.empty((len(columns), 8), dtype=torch.uint8, device=packed.device)
    for place in range(8):
        codes[:, place] = (words >> (7 - place) * bits) & ((1 << bits) - 1)
    return codes.reshape(-1)[:count].clone()


def unpack_at(packed: Tensor, bits: int, places: Tensor) -> Tensor:
    """The codes at ``places`` (any shape, whole numbers from 0) of what :func:`pack` gave: uint8, in that shape."""
    bit = places * bits
    first = bit // 8
    second = (first + 1).clamp(max=packed.numel() - 1)  # of a code that ends in the first byte its bits are shifted out
    words = (packed[first].to(torch.int32) << 8) | packed[second].to(torch.int32)
    return ((words >> (16 - bits - bit % 8)) & ((1 << bits) - 1)).to(torch.uint8)


def _word(bits: int) -> torch.dtype:
    """A word of eight codes."""
    return torch.int32 if 8 * bits < 32 else torch.int64


def _padded(flat: Tensor, columns: int) -> Tensor:
    """Bytes in rows of ``columns``, zeros at the end."""
    padded = torch.zeros(-(-flat.numel() // columns) * columns, dtype=torch.uint8, device=flat.device)
    padded[: flat.numel()] = flat
    return padded.reshape(-1, columns)


def _packed_evenly(flat: Tensor, bits: int) -> Tensor:
    """Codes of 1, 2 or 4 bits, of which a whole number fills each byte."""
    together = 8 // bits
    columns = _padded(flat, together)
    packed = columns[:, 0] << (8 - bits)
    for place in range(1, together):
        packed |= columns[:, place] << (8 - bits - place * bits)
    return packed


def _unpacked_evenly(packed: Tensor, bits: int, count: int) -> Tensor:
    together = 8 // bits
    codes = torch.empty((packed.numel(), together), dtype=torch.uint8, device=packed.device)
    for place in range(together):
        codes[:, place] = (packed >> (8 - bits - place * bits)) & ((1 << bits) - 1)
    return codes.reshape(-1)[:count].clone()
