"""HAM: a dense matrix as Huffman words, any column of which can be read alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from corank.errors import ArtifactError, ConfigError
from corank.storage.coders.base import SymbolCoder
from corank.storage.coders.bit_stream import lane_bits, read_lanes, write_words
from corank.storage.coders.prefix_code import PrefixCode, code_of, read_code

__all__ = ["Ham", "dictionary_bits", "stream_bits", "word_of"]

WORD_BITS = 32


def word_of(largest: int) -> int:
    """``r(x)`` of the paper: 8, doubled until ``x < 2^r``; bits of an index up to ``largest``."""
    bits = 8
    while largest >= 1 << bits:
        bits *= 2
    return bits


def stream_bits(counts: np.ndarray, lengths: np.ndarray) -> int:
    """``w ceil(sum_v f_v l_v / w)``: bits of the words of symbols that occur ``counts`` times, ``w`` = 32."""
    total = int(counts.astype(np.int64) @ lengths.astype(np.int64))
    return -(-total // WORD_BITS) * WORD_BITS


def dictionary_bits(values: int, longest: int, prefix: int = 8) -> int:
    """``32 k + (L + 1) r(k) + (L + 2) r(2^L) + 2^t r(L)``: the published dictionary, in bits.

    Args:
        values: ``k``, distinct values, each in 32 bits.
        longest: ``L``, bits of the longest word.
        prefix: ``t``, bits that look up a length.
    """
    first = (longest + 1) * word_of(values) + (longest + 2) * word_of(1 << longest)
    return 32 * values + first + (1 << prefix) * word_of(longest)


@dataclass(frozen=True)
class Ham(SymbolCoder):
    """Huffman Address Map (Marinò, Petrini, Malchiodi, Frasca, arXiv 2108.12704): one Huffman code for all entries.

    The paper's ``W (n, m)`` stands in ``y = x W``; a column of it holds an output's weights and is a *row* here.
    Columns are written one after another, in 32-bit words with the first bit highest, zeros at the end:
    :func:`stream_bits`. Codes are canonical (the paper's second form) and at most 15 bits up to 256 levels, 20 above.
    Since canonical codes follow from their lengths, the dictionary is the lengths alone, and smaller than
    :func:`dictionary_bits`; the values are the codebook's and stand elsewhere. Each column's bits are stored as well,
    by which :meth:`row` finds it; the paper keeps them for parallel products and does not count them.

    Bytes: the code's lengths, the width ``r`` of a column's bits (1), those (``r / 8`` each, little-endian), the words.
    """

    def _encode(self, values: np.ndarray, levels: int) -> bytes:
        flat = values.reshape(-1)
        code = code_of(np.bincount(flat, minlength=levels))
        sizes = lane_bits(flat, code, np.full(len(values), values.shape[1]))
        return code.stored() + stored_sizes(sizes) + write_words(flat, code, WORD_BITS // 8)

    def _decode(self, data: bytes, shape: tuple[int, int], levels: int) -> np.ndarray:
        code, sizes, words = _parts(data, shape[0], levels)
        return read_lanes(words, code, sizes, np.full(shape[0], shape[1]))

    def row(self, data: bytes, number: int, shape: tuple[int, int], levels: int) -> Tensor:
        """Row ``number`` of ``decode(data, shape, levels)``, ``(C,)`` and of its dtype, without reading the others.

        Raises:
            ConfigError: where there is no such row. ArtifactError: as ``decode``.
        """
        check_row(number, shape)
        code, sizes, words = _parts(data, shape[0], levels)
        return torch.from_numpy(one_lane(words, code, sizes, number, shape[1])[0])


def stored_sizes(sizes: np.ndarray) -> bytes:
    """Bits of each lane behind their width in bits."""
    # As narrow as the longest row allows: beside short rows the sizes are a large part of the file.
    width = word_of(int(sizes.max(initial=0)))
    return width.to_bytes(1, "little") + sizes.astype(f"<u{width // 8}").tobytes()


def read_sizes(data: bytes, at: int, count: int) -> tuple[np.ndarray, int]:
    """What :func:`stored_sizes` wrote from byte ``at`` on, and the byte behind it.

    Raises:
        ArtifactError: where it is cut off, or of an unknown width.
    """
    width = data[at] if at < len(data) else 0
    end = at + 1 + count * width // 8
    # Not 64: no row comes near 2^32 bits.
    if width not in (8, 16, 32) or end > len(data):
        raise ArtifactError(f"the sizes of {count} coded columns are cut off, or of {width} bits")
    return np.frombuffer(data, f"<u{width // 8}", count, at + 1).astype(np.int64), end


def one_lane(words: bytes, code: PrefixCode, sizes: np.ndarray, number: int, count: int) -> np.ndarray:
    """The ``count`` symbols of lane ``number`` alone, ``(1, count)``."""
    # Sizes are kept and not beginnings: they are smaller numbers, and one sum finds a row.
    begin = int(sizes[:number].sum())
    skip = begin & 7  # lanes begin at any bit: what stands before the lane in its first byte is shifted out
    part = words[begin >> 3 : (begin + int(sizes[number]) + 7) >> 3]
    if skip:
        number_bits = (int.from_bytes(part, "big") << skip) & ((1 << (8 * len(part))) - 1)
        part = number_bits.to_bytes(len(part), "big")
    return read_lanes(part, code, sizes[number : number + 1], np.array([count]))


def check_words(words: int, bits: int) -> None:
    """Raises ArtifactError unless ``bits`` bits of words take ``words`` bytes."""
    if words != -(-bits // WORD_BITS) * WORD_BITS // 8:
        raise ArtifactError(f"{words} bytes of Huffman words where {bits} bits are told")


def check_row(number: int, shape: tuple[int, int]) -> None:
    """Raises ConfigError unless a matrix of that shape has that row, with entries."""
    if not 0 <= number < shape[0] or shape[1] < 1:
        raise ConfigError(f"row {number} of a matrix {shape}: it has rows 0 to {shape[0] - 1} of {shape[1]} entries")


def _parts(data: bytes, rows: int, levels: int) -> tuple[PrefixCode, np.ndarray, bytes]:
    code, at = read_code(data, levels)
    sizes, at = read_sizes(data, at, rows)
    check_words(len(data) - at, int(sizes.sum()))
    return code, sizes, data[at:]
