"""Fixed-width codes, really packed: 3 bits are 3 bits."""

from __future__ import annotations

import torch
from torch import Tensor

from corank.errors import ArtifactError

__all__ = ["pack", "packed_bytes", "unpack"]


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
    # Eight codes fill exactly `bits` bytes: pack each such run through one 64-bit word.
    padded = torch.zeros((flat.numel() + 7) // 8 * 8, dtype=torch.int64, device=flat.device)
    padded[: flat.numel()] = flat.long()
    shifts = torch.arange(7, -1, -1, device=flat.device) * bits
    words = (padded.reshape(-1, 8) << shifts).sum(1)
    places = torch.arange(bits - 1, -1, -1, device=flat.device) * 8
    packed = ((words[:, None] >> places) & 0xFF).to(torch.uint8).reshape(-1)
    return packed[: packed_bytes(flat.numel(), bits)].clone()


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
    runs = (count + 7) // 8
    padded = torch.zeros(runs * bits, dtype=torch.int64, device=packed.device)
    padded[: packed.numel()] = packed.long()
    places = torch.arange(bits - 1, -1, -1, device=packed.device) * 8
    words = (padded.reshape(runs, bits) << places).sum(1)
    shifts = torch.arange(7, -1, -1, device=packed.device) * bits
    return ((words[:, None] >> shifts) & ((1 << bits) - 1)).reshape(-1)[:count].to(torch.uint8)
