"""Prefix codes: optimal, complete, canonical, and the table that reads them."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
from reference.huffman import canonical_words, huffman_lengths

from corank.errors import ArtifactError
from corank.storage.coders.prefix_code import PrefixCode, code_of, longest, read_code


def some_counts() -> list[np.ndarray]:
    draw = random.Random(2)
    found = [np.array([1, 1]), np.array([3, 0, 1, 0, 9]), np.ones(256, int), np.arange(1, 257), np.array([0, 7, 10**9])]
    for _ in range(60):
        size = draw.choice((2, 3, 4, 8, 16, 40, 256))
        found.append(np.array([draw.randint(0, 2 ** draw.randint(0, 12)) for _ in range(size - 2)] + [1, 5]))
    return found


def bits(counts: np.ndarray, lengths: np.ndarray) -> int:
    return int(counts @ lengths.astype(np.int64))


@pytest.mark.parametrize("counts", some_counts())
def test_as_good_as_huffman_and_complete(counts: np.ndarray) -> None:
    code = code_of(counts)
    expected = huffman_lengths(dict(enumerate(counts.tolist())))
    limit = longest(len(counts), int(counts.sum()))
    assert code.lengths.max() <= limit <= 15
    if max(expected.values()) <= limit:
        assert bits(counts, code.lengths) == sum(int(counts[symbol]) * size for symbol, size in expected.items())
    assert np.array_equal(code.lengths > 0, counts > 0)
    assert sum(Fraction(1, 2 ** int(size)) for size in code.lengths[counts > 0]) == 1  # Kraft's equality
    shares = counts[counts > 0] / counts.sum()
    entropy = float(-(shares * np.log2(shares)).sum())
    assert entropy - 1e-9 <= bits(counts, code.lengths) / counts.sum() < entropy + 1


def test_lengths_are_limited_at_the_least_cost() -> None:
    counts = np.zeros(64, np.int64)
    counts[:40] = [round(1.618**number) + 1 for number in range(40)]
    unlimited = huffman_lengths(dict(enumerate(counts.tolist())))
    code = code_of(counts)
    assert max(unlimited.values()) > 15 == code.lengths.max()
    assert sum(Fraction(1, 2 ** int(size)) for size in code.lengths[:40]) == 1
    best = bits(counts, code.lengths)
    assert best / bits(counts, np.array([unlimited.get(symbol, 0) for symbol in range(64)])) < 1.001
    for first in range(40):  # no exchange of two lengths, and no other shape nearby, is better
        for second in range(40):
            other = code.lengths.copy()
            other[[first, second]] = other[[second, first]]
            assert bits(counts, other) >= best


@pytest.mark.parametrize("counts", some_counts()[:20])
def test_canonical_words_are_sorted_and_stored_by_their_lengths(counts: np.ndarray) -> None:
    code = code_of(counts)
    lengths = {int(symbol): int(code.lengths[symbol]) for symbol in np.flatnonzero(code.lengths)}
    words = canonical_words(lengths)
    for symbol, size in lengths.items():
        assert format(int(code.words[symbol]), f"0{size}b") == words[symbol]
    in_order = [words[symbol].ljust(15, "0") for symbol in sorted(lengths, key=lambda s: (lengths[s], s))]
    assert in_order == sorted(in_order)
    again, used = read_code(code.stored() + b"more", len(counts))
    assert np.array_equal(again.lengths, code.lengths)
    assert used == len(code.stored()) == (len(counts) + 1) // 2


def test_the_table_reads_what_the_words_say() -> None:
    code = code_of(np.array([50, 20, 10, 5, 3, 0, 1]))
    words = {format(int(code.words[s]), f"0{code.lengths[s]}b"): s for s in np.flatnonzero(code.lengths)}
    symbols, found, used = code.table
    for window in range(1 << code.window):
        text, expected = format(window, f"0{code.window}b"), []
        while len(expected) < len(symbols):
            word = next((word for word in words if text.startswith(word)), None)
            if word is None:
                break
            expected.append(words[word])
            text = text[len(word) :]
        assert symbols[: found[window], window].tolist() == expected
        assert used[window] == code.window - len(text)


def test_a_lone_symbol_has_the_empty_word() -> None:
    code = code_of(np.array([0, 0, 9, 0]))
    assert code.is_constant
    assert code.width == 0
    assert read_code(code.stored(), 4)[0].is_constant
    with pytest.raises(ValueError, match="occurs"):
        code_of(np.zeros(4, int))


def test_large_alphabets() -> None:
    counts = np.zeros(5000, np.int64)
    counts[::7] = np.arange(1, len(counts[::7]) + 1)
    code = code_of(counts)
    again, used = read_code(code.stored(), 5000)
    assert np.array_equal(again.lengths, code.lengths)
    assert used == len(code.stored()) < 2000


@pytest.mark.parametrize("lengths", [[0, 0, 0, 0], [1, 1, 1, 0], [1, 2, 0, 0], [2, 0, 0, 0], [15, 15, 0, 0]])
def test_codes_that_are_not_complete_are_refused(lengths: list[int]) -> None:
    data = PrefixCode(np.array(lengths, np.uint8)).stored()
    with pytest.raises(ArtifactError, match="Kraft"):
        read_code(data, 4)


def test_cut_off_tables_are_refused() -> None:
    with pytest.raises(ArtifactError, match="cut off"):
        read_code(b"\x11", 4)
    stored = code_of(np.ones(300, int)).stored()
    for damaged in (stored[:3], stored[:-3], b"\xff\xff\xff\xff" + stored[4:], stored[:4] + b"??" + stored[6:]):
        with pytest.raises(ArtifactError):
            read_code(damaged, 300)
