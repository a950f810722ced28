"""Columns of whole numbers: what goes in comes out, and no more is read than there is."""

from __future__ import annotations

import random

import pytest

from corank.errors import ArtifactError
from corank.storage.number_columns import ColumnReader, column


@pytest.mark.parametrize(
    "values",
    [[], [0], [7] * 40, [0, 1], [-3, 5, 1000], [1 << 61, 0], [-(1 << 61), 1 << 60], list(range(-70, 200))],
)
def test_a_column_is_read_back(values: list[int]) -> None:
    reader = ColumnReader(column(values) + column([5]))
    assert reader.take(len(values)) == values
    assert reader.take(1) == [5]
    reader.finish()


def test_a_column_takes_the_bits_of_its_spread() -> None:
    draw = random.Random(0)
    values = [draw.randrange(1_000_000, 1_001_000) for _ in range(80)]
    assert len(column(values)) <= 3 + 1 + 80 * 10 // 8
    assert len(column([123] * 1000)) == 3
    assert column([]) == b""


def test_numbers_too_far_apart_are_refused() -> None:
    for values in ([0, 1 << 62], [-(1 << 62), 0], [1 << 62]):
        with pytest.raises(ArtifactError, match="62 bits"):
            column(values)


@pytest.mark.parametrize(
    ("data", "count", "said"),
    [
        (b"", 1, "end early"),
        (b"\x00", 1, "end early"),
        (b"\x00\x08\x01", 2, "end early"),
        (b"\x00\x08", 1 << 60, "end early"),
        (b"\x00\x3f" + bytes(80), 2, "numbers of 63 bits"),
        (b"\x00\xff" + bytes(80), 2, "numbers of 255 bits"),
        (b"\xff" * 20, 1, "a number without end"),
        (column([1, 2]) + b"\x00", 2, "goes on behind its end"),
    ],
)
def test_what_is_no_column_is_refused(data: bytes, count: int, said: str) -> None:
    reader = ColumnReader(data)
    with pytest.raises(ArtifactError, match=said):
        reader.take(count)
        reader.finish()
