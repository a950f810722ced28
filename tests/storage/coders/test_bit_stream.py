"""Streams of words: as text, in lanes of every length, and lanes that lie about their size."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from reference.huffman import as_words, decode_text, text_of

from corank.errors import ArtifactError
from corank.storage.coders.bit_stream import lane_bits, read_lanes, write_words
from corank.storage.coders.prefix_code import PrefixCode, code_of


def example(levels: int, count: int, seed: int) -> tuple[np.ndarray, PrefixCode, dict[int, str]]:
    draw = np.random.default_rng(seed)
    weights = draw.random(levels) ** 6 + 1e-3
    symbols = draw.choice(levels, count, p=weights / weights.sum())
    code = code_of(np.bincount(symbols, minlength=levels))
    words = {int(s): format(int(code.words[s]), f"0{code.lengths[s]}b") for s in np.flatnonzero(code.lengths)}
    return symbols, code, words


@pytest.mark.parametrize(("levels", "count"), [(2, 1), (2, 9), (4, 100), (16, 1000), (256, 3000), (3000, 5000)])
@pytest.mark.parametrize("word_bytes", [1, 4])
def test_words_stand_as_text_says(levels: int, count: int, word_bytes: int) -> None:
    symbols, code, words = example(levels, max(count, 2), 1)
    if code.is_constant:
        pytest.skip("a lone symbol")
    text = text_of(symbols.tolist(), words)
    data = write_words(symbols, code, word_bytes)
    assert data == as_words(text, 8 * word_bytes)
    assert decode_text(text, words, len(symbols)) == symbols.tolist()
    sizes = lane_bits(symbols, code, np.array([len(symbols)]))
    assert sizes.tolist() == [len(text)]
    assert read_lanes(data, code, sizes, np.array([len(symbols)]))[0].tolist() == symbols.tolist()


@pytest.mark.parametrize("levels", [2, 5, 16, 256])
def test_lanes_of_every_length(levels: int) -> None:
    counts = np.array([0, 1, 2, 3, 4, 5, 6, 7, 0, 50, 1, 300])
    symbols, code, words = example(levels, int(counts.sum()), 2)
    sizes = lane_bits(symbols, code, counts)
    at = np.concatenate([[0], np.cumsum(counts)])
    parts = [symbols[start:stop].tolist() for start, stop in pairwise(at.tolist())]
    assert sizes.tolist() == [len(text_of(part, words)) for part in parts]
    lanes = read_lanes(write_words(symbols, code), code, sizes, counts)
    assert lanes.shape == (12, 300)
    assert [lane[:count].tolist() for lane, count in zip(lanes, counts, strict=True)] == parts


def test_parts_written_one_after_another_join_up(monkeypatch: pytest.MonkeyPatch) -> None:
    symbols, code, _ = example(16, 1000, 3)
    whole = write_words(symbols, code)
    monkeypatch.setattr("corank.storage.coders.bit_stream._PART", 7)
    assert write_words(symbols, code) == whole


def test_lanes_that_lie_are_refused() -> None:
    counts = np.array([40, 40, 40])
    symbols, code, _ = example(16, 120, 4)
    sizes = lane_bits(symbols, code, counts)
    data = write_words(symbols, code)
    for change in ([1, -1, 0], [0, 0, 1], [0, 0, -100], [-1, 0, 0]):
        with pytest.raises(ArtifactError):
            read_lanes(data, code, sizes + np.array(change), counts)
    with pytest.raises(ArtifactError, match="cut off"):
        read_lanes(data[:-1], code, sizes, counts)


def test_a_lone_symbol_takes_no_bits() -> None:
    code = code_of(np.array([0, 5]))
    assert write_words(np.ones(5, int), code) == b""
    assert read_lanes(b"", code, np.zeros(2, int), np.array([2, 3])).tolist() == [[1] * 3] * 2
    with pytest.raises(ArtifactError, match="only one symbol"):
        read_lanes(b"\0", code, np.array([1, 0]), np.array([2, 3]))
