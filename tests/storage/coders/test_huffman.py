"""Huffman: bytes by hand, and which way of joining is kept."""

from __future__ import annotations

import pytest
import torch
from reference.huffman import canonical_words, huffman_lengths, text_of

from corank.errors import ArtifactError
from corank.storage.coders import Huffman, entropy


def test_bytes_by_hand() -> None:
    symbols = torch.tensor([[0, 0, 0, 1, 0, 2, 0, 0]])
    data = Huffman().encode(symbols, 17)  # 5 bits: none are joined
    words = canonical_words(huffman_lengths({0: 6, 1: 1, 2: 1}))
    text = text_of(symbols[0].tolist(), words)
    assert text == "0001001100"
    lengths = bytes([0x12, 0x20, 0, 0, 0, 0, 0, 0, 0])
    assert data == b"\x01" + lengths + (10).to_bytes(2, "little") + bytes([0b00010011, 0b00000000])


def test_joined_symbols_go_below_a_bit() -> None:
    symbols = (torch.rand(200, 500) < 0.02).long()
    bits = 8 * len(Huffman().encode(symbols, 2)) / symbols.numel()
    assert entropy(symbols, 2) < bits < 0.25


def test_mean_size_is_within_a_bit_of_the_entropy() -> None:
    for levels, spread in ((4, 0.6), (16, 1.0), (16, 3.0), (32, 0.4), (256, 30.0)):
        symbols = (torch.randn(300, 500) * spread + levels / 2).round().long().clamp(0, levels - 1)
        bits = 8 * len(Huffman().encode(symbols, levels)) / symbols.numel()
        assert entropy(symbols, levels) <= bits < entropy(symbols, levels) + 1


def test_unsound_heads_are_refused() -> None:
    symbols = torch.randint(0, 16, (8, 400))
    data = Huffman().encode(symbols, 16)
    with pytest.raises(ArtifactError, match="3 symbols joined"):
        Huffman().decode(b"\x03" + data[1:], (8, 400), 16)
    with pytest.raises(ArtifactError, match="0 symbols joined"):
        Huffman().decode(b"", (8, 400), 16)
    with pytest.raises(ArtifactError, match="bits are told"):
        Huffman().decode(data + b"\0", (8, 400), 16)
    with pytest.raises(ArtifactError):
        Huffman().decode(data, (9, 400), 16)
