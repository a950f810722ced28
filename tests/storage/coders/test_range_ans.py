"""Rans: below the entropy where neighbours tell, close to it where they do not, and the bytes as they are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from corank.errors import ArtifactError
from corank.storage.coders import Rans, ans_lanes, entropy
from corank.testing import check_coder


def kernels(rows: int = 32, channels: int = 32) -> Tensor:
    """Codes of smooth 3 x 3 kernels ``(rows, 9 channels)`` around 15: neighbours are often of one sign."""
    smooth = torch.randn(rows * channels, 1, 3, 3) + 1.5 * torch.randn(rows * channels, 1, 1, 1)
    return (0.7 * smooth * torch.rand(rows * channels, 1, 1, 1)).round().long().reshape(rows, -1).clamp(-5, 5) + 15


def test_kernels_take_less_than_the_entropy_of_single_codes() -> None:
    symbols = kernels()
    data = Rans().encode(symbols, 32)
    assert data[0] >> 4 == 5  # nine places
    assert 8 * len(data) < 0.9 * entropy(symbols, 32) * symbols.numel()


def test_codes_without_neighbours_take_their_entropy() -> None:
    for levels, spread, columns in ((2, 0.4, 576), (4, 0.7, 512), (16, 0.6, 64), (16, 2.5, 576), (64, 0.7, 1)):
        symbols = (torch.randn(36864 // columns, columns) * spread + levels / 2).round().long().clamp(0, levels - 1)
        bits = 8 * len(Rans().encode(symbols, levels)) / symbols.numel()
        least = entropy(symbols, levels)
        assert least - 0.01 < bits < 1.015 * least + 0.01


def test_any_alphabet_is_learned_whatever_its_order() -> None:
    order, symbols = torch.randperm(32), (torch.rand(100, 400) ** 4 * 32).long()
    bits = 8 * len(Rans().encode(order[symbols], 32)) / symbols.numel()
    assert bits < 1.02 * entropy(symbols, 32)


def test_negative_codes_may_stand_at_the_end_of_the_alphabet() -> None:
    symbols = kernels()
    assert len(Rans().encode((symbols - 15) % 32, 32)) == len(Rans().encode(symbols, 32))


def test_rows_of_one_symbol_take_almost_nothing() -> None:
    symbols = kernels(128)
    full = len(Rans().encode(symbols[::4], 32))
    symbols[torch.arange(128) % 4 > 0] = 15
    assert full <= len(Rans().encode(symbols, 32)) < full + 20  # 128 decisions of 0.8 bits are 13 bytes
    assert len(Rans().encode(torch.full((5000, 100), 3), 8)) < 20


@pytest.mark.parametrize("shape", [(40, 288), (1, 1000), (1000, 1), (3, 27), (64, 75)])
def test_many_lanes(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    symbols = (torch.randn(shape) * 2 + 8).round().long().clamp(0, 15)
    one = Rans().encode(symbols, 16)
    monkeypatch.setattr(ans_lanes, "_ONE_LANE_BYTES", 0)
    many = Rans().encode(symbols, 16)
    assert (one[0] & 15, many[0] & 15) == (0, 6)
    for data in (one, many):
        assert torch.equal(Rans().decode(data, shape, 16).long(), symbols)
    assert len(many) < len(one) + 5 * 64


def test_conformance_with_many_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ans_lanes, "_ONE_LANE_BYTES", -1)
    check_coder(Rans())


def test_the_bytes_are_those_of_the_first_version() -> None:
    """A change of contexts, of learning or of rounding would make files unreadable."""
    symbols = (torch.arange(4 * 18).reshape(4, 18) ** 2 // 7) % 5 % 4
    assert Rans().encode(symbols, 4).hex() == "50007151fdea2d7cb50d02114a3159cbc8f34a73f8ac09"
    large = torch.arange(2 * 300).reshape(2, 300) ** 3 % 911 * (torch.arange(300) % 3 == 0)
    assert (
        Rans().encode(large, 1000)[:40].hex()
        == "10000000000132020000000000000000000cf37394c61171c0e6327a521000800000000000000000"
    )


def test_unsound_heads_are_refused() -> None:
    symbols = kernels(8, 8)
    data = Rans().encode(symbols, 32)
    heads = (bytes([data[0] + 13]), b"\xf0", b"\x20", data[:1] + b"\x20")
    for damaged in [b"", data[:1], data[:2], *(head + data[len(head) :] for head in heads)]:
        with pytest.raises(ArtifactError):
            Rans().decode(damaged, (8, 72), 32)
    with pytest.raises(ArtifactError, match="9 places in 71 columns"):
        Rans().decode(data, (8, 71), 32)
    for shape in ((9, 72), (8, 81), (4, 72)):
        with pytest.raises(ArtifactError):
            Rans().decode(data, shape, 32)


def test_sizes_beyond_the_levels_are_refused() -> None:
    symbols = torch.full((4, 64), 8)
    symbols[:, ::2] = 0  # 8 away: the farthest of 16 levels
    data = Rans().encode(symbols, 16)
    with pytest.raises(ArtifactError):
        Rans().decode(data, (4, 64), 9)


def test_a_sample_tells_the_size_of_many_symbols() -> None:
    symbols = kernels(256, 256)
    values = symbols.numpy().astype("uint8")
    assert Rans().expected_bytes(values, 32) == pytest.approx(len(Rans().encode(symbols, 32)), rel=0.05)
    assert Rans().expected_bytes(values[:16], 32) == 0.0
