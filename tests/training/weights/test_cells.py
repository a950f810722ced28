"""Weights moved into the cells of given codes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from corank.codecs import Binary, PowerOfTwo, ScalarCodebook, StatsQ, Ternary, Uniform
from corank.training.weights.cells import into_cells, with_scale

CODECS = [Uniform(3, range="mse", half=True), StatsQ(3), Ternary(), Binary(), PowerOfTwo(4, nearest="log")]


def weight(seed: int = 0) -> torch.Tensor:
    return torch.randn(4, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_a_weight_goes_where_its_code_is_and_no_farther(codec: Uniform) -> None:
    book = codec.fit(weight())
    assert isinstance(book, ScalarCodebook)
    codes = book.nearest(weight(1))
    moved = into_cells(book, codes, weight())
    assert torch.equal(book.nearest(moved), codes)
    # what was well inside its cell stays; nothing goes past the value of its code
    assert bool(((moved - weight()).abs() <= (book.values(codes) - weight()).abs() + 1e-6).all())


def test_levels_and_back() -> None:
    book = Uniform(4, range="mse").fit(weight())
    level = book.in_levels(book.values(book.nearest(weight())))
    torch.testing.assert_close(level, level.round(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.1])
@pytest.mark.parametrize("codec", [StatsQ(2), StatsQ(4), Binary()], ids=str)
def test_a_statistic_is_met_inside_the_cells(codec: StatsQ, factor: float) -> None:
    book = codec.fit(weight())
    book = replace(book, scale=book.scale * factor)
    codes = book.nearest(weight() + 0.2 * weight(1))
    moved = with_scale(book, codes, weight(), lambda now: codec.fit(now).scale)
    fitted = codec.fit(moved)
    torch.testing.assert_close(fitted.scale, book.scale, rtol=2e-3, atol=0)
    assert torch.equal(fitted.nearest(moved), codes)
