"""The blend of BinaryRelax: its two ends, its gradient, and what ships."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from corank.codecs import Bcgd, Binary, Uniform
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError
from corank.training.described import described, read
from corank.training.weights import LearnedStep, Relaxed, StraightThrough, TrainableWeight, WeightStart, WeightTraining
from corank.training.weights.relaxed import RelaxedWeight


def started(how: WeightTraining, weight: Tensor) -> tuple[RelaxedWeight, Tensor]:
    running, latent = how.start(WeightStart(weight))
    assert isinstance(running, RelaxedWeight)
    return running, latent


def nearest(codec: Bcgd | Binary, weight: Tensor) -> Tensor:
    book = codec.fit(weight)
    return book.values(book.nearest(weight))


@pytest.mark.parametrize("codec", [Binary(), Bcgd(2, group=0), Bcgd(4)])
def test_an_eta_of_zero_gives_the_weight_and_an_infinite_one_its_codes(codec: Bcgd | Binary) -> None:
    running, weight = started(Relaxed(StraightThrough(codec)), torch.randn(5, 24))
    running.relax(0.0)
    assert torch.equal(running(weight), weight)
    running.relax(math.inf)
    assert torch.equal(running(weight), nearest(codec, weight))


@pytest.mark.parametrize("eta", [0.1, 1.0, 17.0])
def test_between_them_it_is_the_blend_of_the_paper(eta: float) -> None:
    running, weight = started(Relaxed(), torch.randn(5, 24))
    running.relax(eta)
    expected = (eta * nearest(Binary(), weight) + weight) / (1 + eta)
    assert torch.allclose(running(weight), expected, rtol=1e-5, atol=1e-7)


def test_eta_is_one_at_first() -> None:
    running, weight = started(Relaxed(), torch.randn(3, 8))
    assert torch.allclose(running(weight), (nearest(Binary(), weight) + weight) / 2)


@pytest.mark.parametrize("eta", [0.0, 1.0, 3.7, math.inf])
def test_the_gradient_of_the_blend_goes_to_the_weight_as_it_is(eta: float) -> None:
    running, weight = started(Relaxed(StraightThrough(Bcgd(2, group=0))), torch.randn(4, 12))
    running.relax(eta)
    gradient = torch.randn(4, 12)
    weight.requires_grad_()
    running(weight).backward(gradient)
    assert weight.grad is not None and torch.equal(weight.grad, gradient)


def test_a_scale_that_is_learned_gets_the_share_of_its_gradient() -> None:
    how = Relaxed(LearnedStep(Uniform(2, range="mse")))
    running, weight = started(how, torch.randn(4, 12))
    running.relax(3.0)
    weight.requires_grad_()
    running(weight).sum().backward()
    alone, _ = how.inner.start(WeightStart(weight.detach()))
    alone(weight.detach().requires_grad_()).sum().backward()
    (blended,), (own,) = running.parameters(), alone.parameters()
    assert blended.grad is not None and own.grad is not None
    assert torch.allclose(blended.grad, 0.75 * own.grad)


@pytest.mark.parametrize("eta", [0.0, 1.0, math.inf])
def test_in_evaluation_and_in_what_ships_it_is_rounded_whatever_eta_is(eta: float) -> None:
    running, weight = started(Relaxed(), torch.randn(5, 24))
    running.relax(eta)
    running.eval()
    assert torch.equal(running(weight), nearest(Binary(), weight))
    assert torch.equal(running.coded(weight).decode(), running(weight))


def test_zero_weights_are_no_third_level() -> None:
    weight = torch.randn(4, 32)
    weight[:, ::3] = 0
    running, weight = started(Relaxed(), weight)
    running.eval()
    for row, given in zip(running(weight), weight, strict=True):
        assert row.unique().numel() == 2
        assert bool((row[given == 0] > 0).all())


def test_a_start_from_codes_rounds_to_them() -> None:
    weight = torch.randn(4, 32)
    book = Binary().fit(weight)
    codes = torch.where(torch.rand(4, 32) < 0.1, 1 - book.nearest(weight), book.nearest(weight))
    running, latent = Relaxed().start(WeightStart(weight, CodedWeight(codes, book)))
    running.eval()
    assert torch.equal(running.coded(latent).codes, codes)


def test_another_codec_is_the_inner_ones() -> None:
    assert Relaxed().with_codec(Bcgd(2)) == Relaxed(StraightThrough(Bcgd(2)))
    assert Relaxed(StraightThrough(Bcgd(2))).stored == Bcgd(2)


def test_json_both_ways() -> None:
    how = Relaxed(StraightThrough(Bcgd(2), refit=3))
    assert read(described(how), WeightTraining) == how


def test_a_way_without_a_float_weight_is_refused() -> None:
    class Fixed(RelaxedWeight):
        trains_weight = False

    class Way(StraightThrough):
        def start(self, given: WeightStart) -> tuple[TrainableWeight, Tensor]:
            running, weight = super().start(given)
            return Fixed(running), weight

    with pytest.raises(ConfigError, match="no float weight to blend"):
        Relaxed(Way()).start(WeightStart(torch.randn(2, 4)))
