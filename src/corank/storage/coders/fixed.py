"""Every symbol in the same number of bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from corank.errors import ArtifactError
from corank.storage.bits import pack, packed_bytes, unpack
from corank.storage.coders.base import SymbolCoder

__all__ = ["Fixed", "symbol_bits"]


def symbol_bits(levels: int) -> int:
    """Bits that tell ``levels`` symbols apart, at least 1."""
    return max(1, (levels - 1).bit_length())


@dataclass(frozen=True)
class Fixed(SymbolCoder):
    """Fixed width, ``ceil(log2 levels)`` bits a symbol, most significant bit first, row by row.

    The "index map" (IM) of Marinò et al. (arXiv 2108.12704) without its table of values. Up to 8 bits the bytes are
    those of :func:`corank.storage.bits.pack`.
    """

    def _encode(self, values: np.ndarray, levels: int) -> bytes:
        bits = symbol_bits(levels)
        if bits <= 8:
            return pack(torch.from_numpy(values), bits).numpy().tobytes()
        # Big-endian, so that the bits of both bytes stand in order, most significant first.
        planes = np.unpackbits(values.reshape(-1, 1).astype(">u2").view(np.uint8), axis=1)
        return np.packbits(planes[:, 16 - bits :]).tobytes()

    def _decode(self, data: bytes, shape: tuple[int, int], levels: int) -> np.ndarray:
        """The inverse of ``_encode``: numpy where codes are wider than :func:`corank.storage.bits.unpack` reads."""
        count, bits = shape[0] * shape[1], symbol_bits(levels)
        # Before anything is unpacked: the size follows from the shape alone.
        if len(data) != packed_bytes(count, bits):
            raise ArtifactError(
                f"{len(data)} bytes where {count} codes of {bits} bits take {packed_bytes(count, bits)}"
            )
        raw = np.frombuffer(data, np.uint8)
        if bits <= 8:
            return unpack(torch.from_numpy(raw.copy()), bits, count).numpy()
        planes = np.zeros((count, 16), np.uint8)
        planes[:, 16 - bits :] = np.unpackbits(raw, count=count * bits).reshape(count, bits)
        return np.packbits(planes, axis=1).view(">u2").astype(np.int64)
