"""Deflate: a bare stream of the joined symbols, which any reader of deflate gives back."""

from __future__ import annotations

import zlib

import pytest
import torch

from corank.errors import ArtifactError
from corank.storage.bits import pack
from corank.storage.coders import Deflate


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_stream_holds_packed_codes(bits: int) -> None:
    symbols = torch.randint(0, 1 << bits, (9, 50))
    data = Deflate().encode(symbols, 1 << bits)
    assert zlib.decompress(data, -15) == pack(symbols, bits).numpy().tobytes()


def test_repetition_is_used_where_it_helps() -> None:
    symbols = torch.arange(256).repeat(50)[None]
    assert len(Deflate().encode(symbols, 256)) < 500


def test_streams_that_hold_more_or_less_are_refused() -> None:
    symbols = torch.randint(0, 16, (8, 100))
    data = Deflate().encode(symbols, 16)
    for shape in ((8, 99), (8, 103), (1, 1)):
        with pytest.raises(ArtifactError, match="does not end"):
            Deflate().decode(data, shape, 16)
    with pytest.raises(ArtifactError, match="does not end"):
        Deflate().decode(data + b"x", (8, 100), 16)
    with pytest.raises(ArtifactError):
        Deflate().decode(b"", (8, 100), 16)
