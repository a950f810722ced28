"""Levels of each row, by loops."""

from __future__ import annotations

import torch

from corank.codecs import RowLevels


def book() -> RowLevels:
    levels = torch.tensor([[-2.0, -0.5, 0.0, 3.0], [0.0, 1.0, 1.0, 1.0], [-1.0, -1.0 + 2**-10, 5.0, 6.0]])
    return RowLevels(levels)


def test_nearest_by_loops() -> None:
    weight = torch.randn(3, 40) * 3
    codes = book().nearest(weight)
    for row in range(3):
        distance = (book().levels[row] - weight[row, :, None]).abs()
        assert torch.equal(codes[row].long(), distance.argmin(1))
        assert torch.equal(book().values(codes)[row], book().levels[row][codes[row].long()])


def test_a_level_that_is_repeated_takes_one_code() -> None:
    assert book().nearest(torch.full((3, 2), 9.0))[1].tolist() == [1, 1]
    below, above = book().neighbours(torch.full((3, 2), 9.0))
    assert below[1].tolist() == above[1].tolist() == [1, 1]


def test_neighbours_bracket() -> None:
    weight = torch.randn(3, 40)
    below, above = (book().values(codes) for codes in book().neighbours(weight))
    inside = (weight > book().levels[:, :1]) & (weight < book().levels[:, -1:])
    assert bool(((below <= weight) & (weight <= above))[inside].all())
    assert torch.equal(below[~inside], above[~inside])


def test_thresholds_decide_and_columns_share_a_row() -> None:
    given = RowLevels(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.9]]))
    assert given.nearest(torch.tensor([[0.8, 0.95]])).tolist() == [[0, 1]]
    assert given.columns(torch.tensor([1])) is given


def test_size_and_codes_beyond_the_last() -> None:
    assert book().size == 4 and book().code_bits == 2 and book().size_bits == 3 * 4 * 16
    assert RowLevels(torch.randn(2, 3).sort(1).values).values(torch.full((2, 1), 255, dtype=torch.uint8)).shape == (
        2,
        1,
    )
