"""HAM and sHAM (arXiv 2108.12704) for ``W (n, m)`` in ``y = x W``: column after column, words as text."""

from __future__ import annotations

import math
from collections import Counter

from reference.huffman import as_words, canonical_words, huffman_lengths, text_of

Matrix = list[list[int]]


def index_width(largest: int) -> int:
    """``r(x)``: 8, doubled until ``x < 2^r``."""
    width = 8
    while not largest < 2**width:
        width *= 2
    return width


def ham(matrix: Matrix) -> tuple[bytes, dict[int, str]]:
    """The stream of 32-bit words, and the code."""
    entries = [row[column] for column in range(len(matrix[0])) for row in matrix]
    words = canonical_words(huffman_lengths(dict(Counter(entries))))
    return as_words(text_of(entries, words), 32), words


def sham(matrix: Matrix, zero: int) -> tuple[list[int], list[int], bytes, dict[int, str]]:
    """Others in each column, their rows, the stream of 32-bit words of their values, and the code."""
    counts, places, values = [], [], []
    for column in range(len(matrix[0])):
        rows = [row for row in range(len(matrix)) if matrix[row][column] != zero]
        counts.append(len(rows))
        places += rows
        values += [matrix[row][column] for row in rows]
    words = canonical_words(huffman_lengths(dict(Counter(values))))
    return counts, places, as_words(text_of(values, words), 32), words


def ham_stream_bits(matrix: Matrix) -> int:
    """``w ceil(sum_v f_v l_v / w)``, w = 32."""
    counts = Counter(value for row in matrix for value in row)
    lengths = huffman_lengths(dict(counts))
    return 32 * math.ceil(sum(counts[value] * lengths[value] for value in counts) / 32)


def canonical_dictionary(values: int, longest: int, prefix: int) -> int:
    """Bits of the tables of the published canonical form: values, first symbols, first codes, lengths by prefix."""
    symbols = sum(32 for _ in range(values))
    first_symbols = sum(index_width(values) for _ in range(longest + 1))
    first_codes = sum(index_width(2**longest) for _ in range(longest + 2))
    lengths = sum(index_width(longest) for _ in range(2**prefix))
    return symbols + first_symbols + first_codes + lengths
