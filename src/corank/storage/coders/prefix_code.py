"""Canonical prefix codes: lengths from counts, code words from lengths, and the table that reads them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from corank.errors import ArtifactError

__all__ = ["PrefixCode", "code_of", "longest", "read_code"]

_TOGETHER = 4  # symbols that one look into the table may give
_WINDOW = 15  # bits that a look sees, where words are not longer: more would not stay in a processor's cache


@dataclass(frozen=True, eq=False)
class PrefixCode:
    """A complete prefix code: no word begins another, and every string of bits is one of words.

    Attributes:
        lengths: ``(L,)`` uint8, bits of each symbol's word; 0 for symbols that do not occur. Where only one symbol
            occurs its length is 1 here, and its word is empty: it takes no bits.
    """

    lengths: np.ndarray

    @cached_property
    def is_constant(self) -> bool:
        """Whether only one symbol occurs."""
        return int(np.count_nonzero(self.lengths)) == 1

    @cached_property
    def width(self) -> int:
        """Bits of the longest word."""
        return 0 if self.is_constant else int(self.lengths.max())

    @cached_property
    def order(self) -> np.ndarray:
        """The symbols that occur, in order of their words: the shorter first, among equals the smaller symbol."""
        used = np.flatnonzero(self.lengths)
        # This order and the lengths fix all words, which is why a file holds lengths alone (a canonical code).
        return used[np.argsort(self.lengths[used], kind="stable")]

    @cached_property
    def words(self) -> np.ndarray:
        """``(L,)`` int64: the code words, each in the low ``lengths`` bits."""
        words = np.zeros(len(self.lengths), np.int64)
        # Starts are left-aligned to the longest word; shifted right, each is its own bits.
        words[self.order] = self._starts >> (self.width - self._sizes)
        return words

    @cached_property
    def window(self) -> int:
        """Bits that one look into the table sees: as the longest word has, or enough for two words of usual size."""
        return max(self.width, min(_WINDOW, int(2 * self._usual_size + 1)))

    @cached_property
    def table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the next :attr:`window` bits hold, ``T = 2^window``.

        Symbols ``(k, T)``, how many of them ``(T,)``, their bits ``(T,)``; ``k`` is 1 to 4.
        """
        # A word of s bits begins 2^(window - s) windows, and words ascend: so often repeated, symbols are the table.
        spans = 1 << (self.window - self._sizes)
        single, size = np.repeat(self.order, spans), np.repeat(self._sizes, spans)
        together = max(1, min(_TOGETHER, int(self.window / self._usual_size)))
        mask = (1 << self.window) - 1
        bits = np.arange(mask + 1)
        symbols = np.zeros((together, mask + 1), np.uint8 if len(self.lengths) <= 256 else np.int32)
        found, used = np.zeros(mask + 1, np.int64), np.zeros(mask + 1, np.int64)
        for place in range(together):
            # Zeros move in from the right; a word that would need them does not fit, and is left to the next look.
            rest = (bits << used) & mask
            # The second part: once a word did not fit, no shorter one behind it may be taken in its place.
            fits = (used + size[rest] <= self.window) & (found == place)
            symbols[place] = single[rest]
            used += np.where(fits, size[rest], 0)
            found += fits
        return symbols, found, used

    def stored(self) -> bytes:
        """The lengths as bytes: 4 bits each up to 256 symbols; above, 5 bits each, deflated, after their size."""
        bits = _length_bits(len(self.lengths))
        planes = np.unpackbits(self.lengths.reshape(-1, 1), axis=1)[:, 8 - bits :]
        packed = np.packbits(planes).tobytes()
        if len(self.lengths) <= 256:
            return packed
        # Few of a large alphabet's symbols occur: mostly zeros, which deflate almost to nothing.
        squeezed = zlib.compress(packed, 9)
        return len(squeezed).to_bytes(4, "little") + squeezed

    @cached_property
    def _sizes(self) -> np.ndarray:
        return np.zeros(1, np.int64) if self.is_constant else self.lengths[self.order].astype(np.int64)

    @cached_property
    def _usual_size(self) -> float:
        """Bits of a word where symbols occur as often as the lengths suggest."""
        return float((self._sizes * 0.5**self._sizes).sum())

    @cached_property
    def _starts(self) -> np.ndarray:
        """The words in order, their first bit moved to the place of the longest word's first bit."""
        # The next word begins where all strings that begin with this one end.
        spans = 1 << (self.width - self._sizes)
        return np.cumsum(spans) - spans


def longest(levels: int, count: int | None = None) -> int:
    """The most bits that a code word of such an alphabet takes; among ``count`` symbols in all no more than of use.

    A symbol that occurs once among ``count`` is worth ``log2 count`` bits. Shorter words make smaller tables.
    """
    most = 15 if levels <= 256 else 20
    return most if count is None else min(most, max(levels, count).bit_length() + 1)


def code_of(counts: np.ndarray) -> PrefixCode:
    """The code of least size for symbols that occur ``counts`` ``(L,)`` times, no word above :func:`longest`.

    Huffman's (1952), by package-merge (Larmore and Hirschberg, "A fast algorithm for optimal length-limited Huffman
    codes", 1990). Where Huffman's own words are within the limit the two are of one size.

    Raises:
        ValueError: where no symbol occurs.
    """
    used = np.flatnonzero(counts)
    if not len(used):
        raise ValueError("a code needs a symbol that occurs")
    lengths = np.zeros(len(counts), np.uint8)
    if len(used) == 1:
        lengths[used] = 1
        return PrefixCode(lengths)
    # Package-merge. A symbol is a coin of its count in each of as many rounds as a word may have bits; of every round
    # the cheapest coins and pairs of the round before are kept in order.
    ascending = used[np.argsort(counts[used], kind="stable")]
    weights = counts[ascending].astype(np.int64)
    is_leaf, merged = [], weights
    for _ in range(longest(len(counts), int(weights.sum()))):
        pairs = merged[: len(merged) // 2 * 2].reshape(-1, 2).sum(1) if is_leaf else merged[:0]
        both = np.concatenate([weights, pairs])
        # Stable, and leaves first: of equal weights the leaf is taken, and leaves are taken in ascending order.
        order = np.argsort(both, kind="stable")
        merged = both[order]
        is_leaf.append(order < len(weights))
    # 2 n - 2 of the last round make Kraft's sum one; a symbol's length is the number of rounds it is taken in. A pair
    # that is taken takes two of the round before, and these are its first ones, so counts are all that is needed.
    chosen = 2 * len(weights) - 2
    for flags in reversed(is_leaf):
        leaves = int(flags[:chosen].sum())
        lengths[ascending[:leaves]] += 1
        chosen = 2 * (chosen - leaves)
    return PrefixCode(lengths)


def read_code(data: bytes, levels: int) -> tuple[PrefixCode, int]:
    """The code that :meth:`PrefixCode.stored` wrote at the head of ``data``, and how many bytes that took.

    Raises:
        ArtifactError: for bytes that are no complete code.
    """
    bits = _length_bits(levels)
    size = (levels * bits + 7) // 8
    packed, end = data[:size], size
    if levels > 256:
        end = 4 + int.from_bytes(data[:4], "little")
        # No more than one byte beyond the size is made of it, whatever the bytes say.
        packed = _inflated(data[4:end], size) if end <= len(data) else b""
    if len(packed) != size:
        raise ArtifactError("the table of a prefix code is cut off")
    planes = np.unpackbits(np.frombuffer(packed, np.uint8), count=levels * bits).reshape(levels, bits)
    lengths = (planes.astype(np.int64) << np.arange(bits - 1, -1, -1)).sum(1).astype(np.uint8)
    used = lengths[lengths > 0].astype(np.int64)
    limit = longest(levels)
    # sum 2^-l = 1 in whole numbers: then every string of bits is words, and the table has no empty place.
    complete = len(used) and used.max() <= limit and int((1 << (limit - used)).sum()) == 1 << limit
    if not complete and used.tolist() != [1]:
        raise ArtifactError("the table of a prefix code breaks Kraft's equality")
    return PrefixCode(lengths), end


def _length_bits(levels: int) -> int:
    return 4 if levels <= 256 else 5


def _inflated(data: bytes, size: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, size + 1)
    except zlib.error as error:
        raise ArtifactError(f"the table of a prefix code is not sound: {error}") from error
