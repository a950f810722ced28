"""Fixed width: the packing of the artifact, and wider symbols."""

from __future__ import annotations

import pytest
import torch

from corank.errors import ArtifactError
from corank.storage.bits import pack
from corank.storage.coders import Fixed


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_bytes_are_those_of_pack(bits: int) -> None:
    symbols = torch.randint(0, 1 << bits, (7, 13))
    assert Fixed().encode(symbols, 1 << bits) == pack(symbols, bits).numpy().tobytes()


@pytest.mark.parametrize("levels", [257, 512, 1000, 40000, 65536])
def test_wide_symbols_as_text(levels: int) -> None:
    symbols = torch.randint(0, levels, (3, 11))
    bits = (levels - 1).bit_length()
    text = "".join(format(symbol, f"0{bits}b") for symbol in symbols.flatten().tolist())
    text += "0" * (-len(text) % 8)
    assert Fixed().encode(symbols, levels) == int(text, 2).to_bytes(len(text) // 8, "big")


def test_symbols_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ArtifactError, match="symbol of 3 where 3 levels"):
        Fixed().decode(b"\xff", (1, 4), 3)
    with pytest.raises(ArtifactError, match="2 bytes where 4 codes of 2 bits take 1"):
        Fixed().decode(b"\xff\0", (1, 4), 4)
