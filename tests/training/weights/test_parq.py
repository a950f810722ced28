"""PARQ's map: the identity at first, the rounding in the end, monotone and inside its intervals between."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from corank.codecs import Binary, Codec, KMeans, Levels, StatsQ, Ternary
from corank.codecs.scalar import ScalarCodebook
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError
from corank.training.described import described, read
from corank.training.weights import Parq, WeightStart, WeightTraining
from corank.training.weights.parq import ParqWeight, piecewise_affine

CODECS = [Binary(), Ternary(), StatsQ(2), Levels(2, (-3.0, -1.0, 1.0, 3.0)), KMeans(2, per="row", scaled=False)]


def slope(inverse: float) -> Tensor:
    return torch.tensor(inverse, dtype=torch.float32)


def started(codec: Codec, weight: Tensor) -> tuple[ParqWeight, Tensor]:
    running, latent = Parq(codec).start(WeightStart(weight))
    assert isinstance(running, ParqWeight)
    return running, latent


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: type(codec).__name__)
def test_at_first_it_is_the_identity_inside_the_range_and_the_ends_outside(codec: Codec) -> None:
    weight = torch.randn(4, 60)
    book = codec.fit(weight)
    ends = book.values(torch.tensor([[0, book.size - 1]] * 4, dtype=torch.uint8))
    expected = torch.minimum(torch.maximum(weight, ends[:, :1]), ends[:, 1:])
    assert torch.allclose(piecewise_affine(book, weight, slope(1.0)), expected, rtol=1e-6, atol=1e-7)


def test_the_identity_changes_no_bit_where_scales_are_powers_of_two() -> None:
    book = ScalarCodebook(torch.arange(-3.0, 4.0), torch.full((2, 1), 0.25), torch.zeros(2, 1), 100)
    weight = torch.empty(2, 100).uniform_(-0.75, 0.75)
    assert torch.equal(piecewise_affine(book, weight, slope(1.0)), weight)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: type(codec).__name__)
def test_in_the_end_it_rounds(codec: Codec) -> None:
    weight = torch.randn(4, 60)
    book = codec.fit(weight)
    rounded = book.values(book.nearest(weight))
    assert torch.equal(piecewise_affine(book, weight, slope(0.0)), rounded)
    assert torch.allclose(piecewise_affine(book, weight, slope(1e-20)), rounded, rtol=1e-6)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: type(codec).__name__)
@pytest.mark.parametrize("inverse", [1.0, 0.6, 0.1, 0.001, 0.0])
def test_it_is_monotone(codec: Codec, inverse: float) -> None:
    book = codec.fit(torch.randn(4, 60))
    line = torch.linspace(-4, 4, 4001).expand(4, -1)
    if isinstance(book, ScalarCodebook):
        book = ScalarCodebook(book.levels, book.scale, book.offset, 4001)
    found = piecewise_affine(book, line, slope(inverse))
    assert bool((found.diff(dim=1) >= -1e-6).all())


def test_between_two_values_it_is_the_line_of_the_paper() -> None:
    book = ScalarCodebook(torch.tensor([-1.0, 0.0, 1.0]), torch.ones(1, 1), torch.zeros(1, 1), 7)
    weight = torch.tensor([[-1.5, -0.7, -0.55, 0.2, 0.45, 0.6, 1.0]])
    expected = torch.tensor([[-1.0, -0.9, -0.6, 0.0, 0.4, 0.7, 1.0]])
    assert torch.allclose(piecewise_affine(book, weight, slope(0.5)), expected)


@pytest.mark.parametrize("inverse", [1.0, 0.3, 0.0])
def test_the_gradient_at_the_proximal_point_goes_to_the_float_weight(inverse: float) -> None:
    running, weight = started(Levels(2, (-3.0, -1.0, 1.0, 3.0)), torch.randn(4, 12))
    running.steepen(inverse)
    gradient = torch.randn(4, 12)
    weight.requires_grad_()
    running(weight).backward(gradient)
    assert weight.grad is not None and torch.equal(weight.grad, gradient)


@pytest.mark.parametrize("inverse", [1.0, 0.3, 0.0])
def test_in_evaluation_and_in_what_ships_it_is_rounded_whatever_the_slope_is(inverse: float) -> None:
    running, weight = started(Binary(), torch.randn(5, 24))
    running.steepen(inverse)
    running.eval()
    book = Binary().fit(weight)
    assert torch.equal(running(weight), book.values(book.nearest(weight)))
    assert torch.equal(running.coded(weight).decode(), running(weight))


def test_the_values_are_fitted_anew_as_often_as_asked() -> None:
    running, weight = Parq(Binary(), refit=2).start(WeightStart(torch.ones(1, 4)))
    running.eval()
    moved = 2 * weight
    running.after_step(moved, 0)
    assert torch.equal(running(moved), weight)
    running.after_step(moved, 1)
    assert torch.equal(running(moved), moved)


def test_a_start_from_codes_rounds_to_them() -> None:
    weight = torch.randn(4, 32)
    book = Ternary().fit(weight)
    codes = book.nearest(weight + 0.2 * torch.randn(4, 32))
    running, latent = Parq(Ternary()).start(WeightStart(weight, CodedWeight(codes, book)))
    assert torch.equal(running.coded(latent).codes, codes)


def test_json_both_ways() -> None:
    how = Parq(Levels(2, (-3.0, -1.0, 1.0, 3.0)), refit=10)
    assert read(described(how), WeightTraining) == how


def test_thresholds_that_are_not_midway_are_refused() -> None:
    class Uneven(Binary):
        def thresholds(self) -> Tensor:
            return torch.tensor([0.25])

    with pytest.raises(ConfigError, match="turns midway"):
        Parq(Uneven()).start(WeightStart(torch.randn(2, 4)))


def test_refit_is_a_number_of_steps() -> None:
    with pytest.raises(ConfigError, match="refit=-1"):
        Parq(refit=-1)
