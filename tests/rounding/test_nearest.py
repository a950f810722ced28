"""Rounding to the nearest value."""

from __future__ import annotations

import torch
from reference.uniform import quantize

from corank.codecs import Uniform
from corank.rounding import ROUNDERS, Nearest
from corank.testing import check_rounder


def test_conformance() -> None:
    check_rounder(Nearest())


def test_registered_and_needs_nothing() -> None:
    assert ROUNDERS["nearest"] is Nearest
    assert Nearest.needs == ()


def test_equals_loops() -> None:
    weight = torch.randn(4, 9)
    codebook = Uniform(2, group=4).fit(weight)
    codes = Nearest()(weight, codebook, {})
    assert torch.allclose(codebook.values(codes), torch.tensor(quantize(weight, 2, False, 4)), atol=1e-6)
