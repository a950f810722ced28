"""The gap code of positions: exact round trips, lengths by their formula, the published bound, hostile streams."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from corank.codecs.gaps import WIDTHS, decode_gaps, encode_gaps, expected_bits, gap_symbols, most_symbols
from corank.errors import ArtifactError, ConfigError


def slow_encode(mask: Tensor, bits: int) -> list[int]:
    reach, symbols = 2**bits - 1, []
    for row in mask.tolist():
        before = -1
        for place, marked in enumerate(row):
            if marked:
                gap = place - before
                while gap > reach:
                    symbols.append(reach)
                    gap -= reach
                symbols.append(gap - 1)
                before = place
    return symbols


def slow_decode(symbols: list[int], bits: int, counts: list[int], columns: int) -> list[list[bool]]:
    reach, at, rows = 2**bits - 1, 0, []
    for count in counts:
        row, place = [False] * columns, -1
        while count:
            symbol = symbols[at]
            at += 1
            place += reach if symbol == reach else symbol + 1
            if symbol != reach:
                row[place] = True
                count -= 1
        rows.append(row)
    return rows


def at(columns: int, *places: int) -> Tensor:
    mask = torch.zeros(1, columns, dtype=torch.bool)
    mask[0, list(places)] = True
    return mask


def masks() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    clustered = torch.zeros(3, 400, dtype=torch.bool)
    clustered[:, 100:120] = True
    at_end = torch.zeros(3, 400, dtype=torch.bool)
    at_end[:, -20:] = True
    return {
        "random 5 %": torch.rand(7, 400, generator=draw) < 0.05,
        "random half": torch.rand(7, 90, generator=draw) < 0.5,
        "rare": torch.rand(9, 5000, generator=draw) < 0.0005,
        "clustered": clustered,
        "all at the end": at_end,
        "empty": torch.zeros(4, 33, dtype=torch.bool),
        "full": torch.ones(4, 33, dtype=torch.bool),
        "one": at(300, 299),
        "first": at(300, 0),
        "one position": torch.ones(1, 1, dtype=torch.bool),
        "some rows empty": torch.tensor([[0, 0, 0], [0, 1, 1], [0, 0, 0], [1, 0, 0]]).bool(),
    }


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("name", masks())
def test_there_and_back(name: str, bits: int) -> None:
    mask = masks()[name]
    symbols = encode_gaps(mask, bits)
    assert symbols.dtype == torch.uint8 and symbols.tolist() == slow_encode(mask, bits)
    assert torch.equal(decode_gaps(symbols, bits, mask.sum(1), mask.shape[1]), mask)
    assert slow_decode(symbols.tolist(), bits, mask.sum(1).tolist(), mask.shape[1]) == mask.tolist()


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("times, more", [(1, -1), (1, 0), (1, 1), (2, -1), (2, 0), (2, 1), (3, 0)])
def test_gaps_about_multiples_of_the_reach(bits: int, times: int, more: int) -> None:
    gap = times * (2**bits - 1) + more
    mask = at(3 * gap, gap - 1, 2 * gap - 1)
    symbols = encode_gaps(mask, bits)
    assert len(symbols) == 2 * math.ceil(gap / (2**bits - 1)) == gap_symbols(mask, bits)
    assert torch.equal(decode_gaps(symbols, bits, mask.sum(1), mask.shape[1]), mask)


@pytest.mark.parametrize("bits", WIDTHS)
def test_length_by_its_formula(bits: int) -> None:
    for name, mask in masks().items():
        expected = 0
        for row in mask:
            places = [-1, *row.nonzero()[:, 0].tolist()]
            gaps = [place - before for before, place in itertools.pairwise(places)]
            expected += sum(math.ceil(gap / (2**bits - 1)) for gap in gaps)
        assert gap_symbols(mask, bits) == expected == len(encode_gaps(mask, bits)), name


@pytest.mark.parametrize("columns, count, bits, published", [(4096, 204, 6, 0.313), (4096, 337, 5, 0.447)])
def test_random_places_keep_to_the_published_bound(columns: int, count: int, bits: int, published: float) -> None:
    draw = torch.Generator().manual_seed(0)
    rows = torch.rand(400, columns, generator=draw).argsort(1)[:, :count]
    mask = torch.zeros(400, columns, dtype=torch.bool).scatter_(1, rows, torch.ones_like(rows, dtype=torch.bool))
    share = count / columns
    measured = bits * gap_symbols(mask, bits) / mask.numel()
    assert measured <= expected_bits(share, bits) <= published + 5e-4
    assert measured > 0.98 * expected_bits(share, bits)
    # Symbols of another width are longer.
    assert min(WIDTHS, key=lambda width: expected_bits(share, width)) == bits


def test_no_placement_takes_more_than_the_most() -> None:
    draw = torch.Generator().manual_seed(0)
    for bits in WIDTHS:
        for columns in (1, 5, 40, 300):
            for count in {0, 1, 2, columns // 3, columns} - set(range(columns + 1, 3)):
                for _ in range(20):
                    places = torch.randperm(columns, generator=draw)[:count]
                    mask = torch.zeros(1, columns, dtype=torch.bool)
                    mask[0, places] = True
                    assert gap_symbols(mask, bits) <= most_symbols(count, columns, bits)
                last = torch.zeros(1, columns, dtype=torch.bool)
                last[0, columns - count :] = True
                assert gap_symbols(last, bits) == most_symbols(count, columns, bits)


@pytest.mark.parametrize("share, bits, bound", [(0.01, 8, 0.087), (0.02, 7, 0.152), (0.05, 6, 0.3134), (0.1, 4, 0.515)])
def test_bounds_by_hand(share: float, bits: int, bound: float) -> None:
    assert expected_bits(share, bits) == pytest.approx(share * bits / (1 - math.exp(-share * (2**bits - 1))), rel=1e-12)
    assert expected_bits(share, bits) == pytest.approx(bound, abs=1e-3)
    assert expected_bits(0.0, bits) == 0


def test_hostile_streams() -> None:
    mask = torch.rand(4, 100, generator=torch.Generator().manual_seed(0)) < 0.1
    sound, counts = encode_gaps(mask, 4), mask.sum(1)
    later = sound.clone()
    later[0] = 15  # a skip in place of a mark
    for symbols in (
        sound[:-1],
        sound[1:],
        torch.cat([sound, sound[-1:]]),
        later,
        torch.cat([sound, sound.new_full((1,), 15)]),
    ):
        with pytest.raises(ArtifactError, match="marks"):
            decode_gaps(symbols, 4, counts, 100)
    with pytest.raises(ArtifactError, match="position"):
        decode_gaps(sound, 4, counts, 20)
    with pytest.raises(ArtifactError, match="marks"):
        decode_gaps(sound, 4, counts * 1000, 100)
    with pytest.raises(ArtifactError):
        decode_gaps(torch.full((50,), 14, dtype=torch.uint8), 4, torch.tensor([50]), 100)
    assert not decode_gaps(sound[:0], 4, counts * 0, 100).any()
    for bits in (1, 9):
        with pytest.raises(ConfigError, match="2 to 8"):
            encode_gaps(mask, bits)


def test_random_bytes_are_a_mask_or_our_error() -> None:
    draw = torch.Generator().manual_seed(0)
    refused = 0
    for _ in range(300):
        symbols = torch.randint(16, (24,), generator=draw, dtype=torch.uint8)
        try:
            mask = decode_gaps(symbols, 4, torch.tensor([7, 8, 7]), 70)
        except ArtifactError:
            refused += 1
        else:
            assert torch.equal(encode_gaps(mask, 4), symbols)
    assert 0 < refused < 300
