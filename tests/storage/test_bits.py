"""Packing of codes: every width, every length near a byte's end."""

from __future__ import annotations

import pytest
import torch

from corank.errors import ArtifactError
from corank.storage.bits import pack, packed_bytes, unpack


def by_string(codes: list[int], bits: int) -> list[int]:
    """The same packing through text."""
    text = "".join(format(code, f"0{bits}b") for code in codes)
    text += "0" * (-len(text) % 8)
    return [int(text[at : at + 8], 2) for at in range(0, len(text), 8)]


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_length(bits: int) -> None:
    for count in range(41):
        codes = torch.randint(0, 1 << bits, (count,)).to(torch.uint8)
        packed = pack(codes, bits)
        assert packed.dtype == torch.uint8
        assert packed.tolist() == by_string(codes.tolist(), bits)
        assert packed.numel() == packed_bytes(count, bits)
        assert torch.equal(unpack(packed, bits, count), codes)


@pytest.mark.parametrize("bits", range(1, 9))
def test_extremes_and_shapes(bits: int) -> None:
    codes = torch.full((3, 5, 7), (1 << bits) - 1, dtype=torch.uint8)
    assert torch.equal(unpack(pack(codes, bits), bits, 105), codes.flatten())


@pytest.mark.parametrize(("count", "bits", "size"), [(0, 3, 0), (1, 3, 1), (8, 3, 3), (9, 3, 4), (5, 1, 1), (3, 8, 3)])
def test_packed_size(count: int, bits: int, size: int) -> None:
    assert packed_bytes(count, bits) == size


@pytest.mark.parametrize("bits", range(1, 9))
def test_wrong_lengths(bits: int) -> None:
    packed = pack(torch.zeros(24, dtype=torch.uint8), bits)
    for other in (packed[:-1], torch.cat([packed, packed[:1]]), packed[:0]):
        with pytest.raises(ArtifactError, match=f"24 codes of {bits} bits"):
            unpack(other, bits, 24)


@pytest.mark.parametrize("bits", range(1, 8))
def test_codes_that_do_not_fit(bits: int) -> None:
    with pytest.raises(ValueError, match=f"does not fit in {bits} bits"):
        pack(torch.tensor([0, 1 << bits], dtype=torch.uint8), bits)


def test_what_is_packed_is_a_copy() -> None:
    codes = torch.arange(5, dtype=torch.uint8)
    packed = pack(codes, 8)
    packed[0] = 9
    assert int(codes[0]) == 0
