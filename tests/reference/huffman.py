"""Huffman's code as in the textbooks: a heap of trees, words as text."""

from __future__ import annotations

import heapq
from collections.abc import Iterable


def huffman_lengths(counts: dict[int, int]) -> dict[int, int]:
    """Bits of each symbol's word, without a limit; a lone symbol has the empty word."""
    heap = [(count, symbol, [symbol]) for symbol, count in counts.items() if count]
    heapq.heapify(heap)
    lengths = {symbol: 0 for _, symbol, _ in heap}
    while len(heap) > 1:
        left, right = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in left[2] + right[2]:
            lengths[symbol] += 1
        heapq.heappush(heap, (left[0] + right[0], min(left[1], right[1]), left[2] + right[2]))
    return lengths


def canonical_words(lengths: dict[int, int]) -> dict[int, str]:
    """The canonical code of given lengths, as text of 0 and 1: words count upwards, shorter ones first."""
    words, value, before = {}, 0, 0
    for symbol in sorted(lengths, key=lambda symbol: (lengths[symbol], symbol)):
        value <<= lengths[symbol] - before
        before = lengths[symbol]
        words[symbol] = format(value, f"0{before}b") if before else ""
        value += 1
    return words


def decode_text(text: str, words: dict[int, str], count: int) -> list[int]:
    """``count`` symbols read off ``text``, bit by bit."""
    by_word = {word: symbol for symbol, word in words.items()}
    found, word, place = [], "", 0
    while len(found) < count:
        if word in by_word:
            found.append(by_word[word])
            word = ""
        else:
            word += text[place]
            place += 1
    return found


def as_words(text: str, bits: int) -> bytes:
    """Text of 0 and 1 as words of ``bits`` bits, the first bit highest, zeros at the end."""
    text += "0" * (-len(text) % bits)
    return bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))


def text_of(symbols: Iterable[int], words: dict[int, str]) -> str:
    return "".join(words[symbol] for symbol in symbols)
