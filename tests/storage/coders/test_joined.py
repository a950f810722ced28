"""Symbols joined to bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from corank.storage.bits import pack
from corank.storage.coders.joined import join, joined_levels, most_joined, split


@pytest.mark.parametrize(("levels", "together"), [(1, 8), (2, 8), (3, 4), (4, 4), (8, 2), (16, 2), (17, 1), (256, 1)])
def test_how_many_fit_a_byte(levels: int, together: int) -> None:
    assert most_joined(levels) == together
    assert joined_levels(levels, together) <= 256


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 8, 16, 20, 256, 1000])
def test_there_and_back(levels: int) -> None:
    for count in (1, 2, 3, 4, 5, 7, 8, 9, 100):
        symbols = torch.randint(0, levels, (count,)).numpy()
        for together in {1, most_joined(levels)}:
            joined = join(symbols, levels, together)
            assert joined.max() < joined_levels(levels, together)
            assert np.array_equal(split(joined, levels, together, count), symbols)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_joined_bytes_are_packed_codes(bits: int) -> None:
    symbols = torch.randint(0, 1 << bits, (53,))
    joined = join(symbols.numpy(), 1 << bits, most_joined(1 << bits))
    assert joined.tolist() == pack(symbols, bits).tolist()
