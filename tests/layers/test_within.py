"""Gradients that pass inside a range."""

from __future__ import annotations

import math

import pytest
import torch

from corank.layers.within import ends_of, within


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("closed", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("ends", [(-1.5, 3.0), (0.0, 0.25), (2.0, math.inf), (-math.inf, -1.0)])
def test_it_is_a_choice_by_comparison(dtype: torch.dtype, closed: tuple[bool, bool], ends: tuple[float, float]) -> None:
    finite = [end for end in ends if math.isfinite(end)]
    inputs = torch.cat([torch.randn(500, dtype=torch.float32), torch.tensor([0.0, *finite], dtype=torch.float32)])
    inputs = torch.cat([inputs, inputs.nextafter(torch.full_like(inputs, 9.0))]).to(dtype)
    gradient = torch.randn_like(inputs)
    low, high = (torch.tensor(one, dtype=torch.float32) for one in ends)
    found = within(gradient, inputs, ends, closed)
    assert found.dtype == dtype and torch.equal(found, within(gradient, inputs, (low, high), closed))
    above = inputs >= low if closed[0] else inputs > low
    below = inputs <= high if closed[1] else inputs < high
    assert torch.equal(found != 0, above & below)


def test_ends_are_whole_steps() -> None:
    assert ends_of(torch.tensor(0.5, dtype=torch.float32), -1, 3) == (-0.5, 1.5)
