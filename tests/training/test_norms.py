"""Gains of norms in the scales, or the levels, of codes."""

from __future__ import annotations

import pytest
import torch

from corank.codecs import Codec, EntropyConstrained, ICQuant, KMeans, PowerOfTwo, RowLevels, StatsQ, Uniform
from corank.training.norms import scaled_rows, takes_row_scales

TAKE = [StatsQ(2), Uniform(4), Uniform(3, group=2), KMeans(2), KMeans(2, "row", scaled=False), EntropyConstrained(2)]
TAKE_NOT = [Uniform(4, group=-1), KMeans(2, "layer", scaled=False), PowerOfTwo(3, power_of_two_scale=True), ICQuant(2)]


@pytest.mark.parametrize("codec", TAKE, ids=str)
def test_values_times_a_factor_for_each_row(codec: Codec) -> None:
    weight, factor = torch.randn(4, 30), torch.rand(4) + 0.5
    book = codec.fit(weight)
    codes = book.nearest(weight)
    assert takes_row_scales(codec)
    scaled = scaled_rows(book, factor)
    assert torch.allclose(scaled.values(codes), factor[:, None] * book.values(codes))
    if isinstance(scaled, RowLevels):
        assert bool((scaled.levels.diff(dim=1) >= 0).all())


@pytest.mark.parametrize("codec", TAKE_NOT, ids=str)
def test_what_has_no_scale_for_each_row(codec: Codec) -> None:
    assert not takes_row_scales(codec)
