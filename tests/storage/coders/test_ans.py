"""ANS: close to the entropy, and the library asked for by name."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from corank.errors import ArtifactError, ConfigError
from corank.storage.coders import Ans, entropy


def test_less_than_a_hundredth_of_a_bit_from_the_entropy() -> None:
    pytest.importorskip("constriction")
    for levels, spread in ((2, 0.4), (4, 0.7), (16, 2.5)):
        symbols = (torch.randn(400, 500) * spread + levels / 2).round().long().clamp(0, levels - 1)
        bits = 8 * len(Ans().encode(symbols, levels)) / symbols.numel()
        assert abs(bits - entropy(symbols, levels)) < 0.01


def test_the_size_is_that_of_the_model_counted_symbol_by_symbol() -> None:
    pytest.importorskip("constriction")
    symbols = torch.randint(0, 20, (3, 300)).square() // 20  # 19 levels at most, too wide to join
    seen, bits, updates = np.full(32, 0.5), 0.0, {64, 192, 448, 960}
    model = seen / seen.sum()
    for number, symbol in enumerate(symbols.flatten().tolist()):
        if number in updates:
            model = seen / seen.sum()
        bits -= np.log2(model[symbol])
        seen[symbol] += 1
    size = 8 * (len(Ans().encode(symbols, 32)) - 1)
    assert bits <= size <= bits + 64  # whole words


def test_unsound_bytes_are_refused() -> None:
    pytest.importorskip("constriction")
    data = Ans().encode(torch.randint(0, 16, (8, 100)), 16)
    for damaged in (b"", data[:-1], data[:-4] + bytes(4), b"\x05" + data[1:], data + b"\x01\0\0\0"):
        with pytest.raises(ArtifactError):
            Ans().decode(damaged, (8, 100), 16)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(ConfigError, match=r"pip install 'corank\[entropy\]'"):
        Ans().encode(torch.zeros(1, 5, dtype=torch.uint8), 4)
