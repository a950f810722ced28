"""Counts and entropy, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from corank.storage.histogram import entropy_bits, histogram


def test_every_value_is_counted_once() -> None:
    found = histogram(torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 4.0]]), bins=4)
    assert (found.low, found.high, found.counts) == (0.0, 4.0, (1, 1, 1, 3))


def test_what_lies_outside_is_in_the_outer_bins() -> None:
    assert histogram(torch.tensor([-9.0, 0.5, 9.0, 9.0]), 0.0, 1.0, bins=2).counts == (1, 3)


def test_one_value_and_half_precision() -> None:
    found = histogram(torch.full((5,), 2.0, dtype=torch.float16), bins=2)
    assert found.low < 2.0 < found.high and sum(found.counts) == 5


@pytest.mark.parametrize(
    ("counts", "bits"),
    [([7], 0.0), ([4, 4], 1.0), ([0, 4, 0, 4], 1.0), ([2, 1, 1], 1.5), ([], 0.0), ([1] * 8, 3.0)],
)
def test_entropy(counts: list[int], bits: float) -> None:
    assert entropy_bits(counts) == pytest.approx(bits, abs=1e-12)


def test_entropy_of_a_biased_coin() -> None:
    assert entropy_bits([1, 9]) == pytest.approx(-(0.1 * math.log2(0.1) + 0.9 * math.log2(0.9)))
