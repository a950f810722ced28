"""Canonical Huffman code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from corank.errors import ArtifactError
from corank.storage.coders.base import SymbolCoder
from corank.storage.coders.bit_stream import lane_bits, read_lanes, write_words
from corank.storage.coders.joined import join, joined_levels, most_joined, split
from corank.storage.coders.prefix_code import code_of, read_code

__all__ = ["Huffman"]

_RUN = 1024  # symbols whose bits are counted, so that runs can be read at once; at most 20 bits each


@dataclass(frozen=True)
class Huffman(SymbolCoder):
    """One canonical, length-limited Huffman code for the tensor, over single symbols or over as many as fit a byte.

    Joined symbols (two of 4 bits, four of 2) take less where a whole bit is too coarse for one; which of the two is
    smaller is found by trying. Bytes: how many are joined (1), the code's lengths, the bits of each run of 1024
    joined symbols (2 each, little-endian), the words.
    """

    def _encode(self, values: np.ndarray, levels: int) -> bytes:
        flat = values.reshape(-1)
        return min((_encoded(flat, levels, joined) for joined in sorted({1, most_joined(levels)})), key=len)

    def _decode(self, data: bytes, shape: tuple[int, int], levels: int) -> np.ndarray:
        """Checks each part's size before it is read; runs are lanes that are read in step."""
        count, joined = shape[0] * shape[1], data[0] if data else 0
        if joined not in (1, most_joined(levels)):
            raise ArtifactError(f"a Huffman code of {joined} symbols joined, with {levels} levels")
        code, used = read_code(data[1:], joined_levels(levels, joined))
        counts = _runs(-(-count // joined))
        words = 1 + used + 2 * len(counts)
        if len(data) < words:
            raise ArtifactError("the runs of a Huffman code are cut off")
        # Two bytes suffice: 1024 words of at most 20 bits are 20,480.
        sizes = np.frombuffer(data, "<u2", len(counts), 1 + used).astype(np.int64)
        if len(data) - words != (int(sizes.sum()) + 7) // 8:
            raise ArtifactError(f"{len(data) - words} bytes of Huffman words where {int(sizes.sum())} bits are told")
        return split(read_lanes(data[words:], code, sizes, counts).reshape(-1), levels, joined, count)


def _encoded(values: np.ndarray, levels: int, joined: int) -> bytes:
    symbols = join(values, levels, joined)
    code = code_of(np.bincount(symbols, minlength=joined_levels(levels, joined)))
    sizes = lane_bits(symbols, code, _runs(len(symbols)))
    head = joined.to_bytes(1, "little") + code.stored()
    return head + sizes.astype("<u2").tobytes() + write_words(symbols, code)


def _runs(count: int) -> np.ndarray:
    """Symbols of each run: all but the last are full."""
    counts = np.full(-(-count // _RUN), _RUN, np.int64)
    # All but the last are full, so their counts need not be stored.
    counts[-1] = count - _RUN * (len(counts) - 1)
    return counts
