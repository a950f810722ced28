"""Learned steps: LSQ's gradients, positive scales, started from given codes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from corank.codecs import AdditivePowerOfTwo, Binary, KMeans, PowerOfTwo, ScalarCodebook, Ternary, Uniform
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError
from corank.training.weights import LearnedStep, WeightStart
from corank.training.weights.learned_step import LearnedStepWeight

CODECS = [
    Uniform(2, range="mse", half=True), Uniform(4, range="mse"), Uniform(3, symmetric=True, group=16), Ternary(),
    Binary(), PowerOfTwo(3), AdditivePowerOfTwo(4),
]  # fmt: skip


def weight(seed: int = 0) -> torch.Tensor:
    return torch.randn(5, 48, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_it_starts_from_the_codes_given(codec: Uniform) -> None:
    book = codec.fit(weight())
    assert isinstance(book, ScalarCodebook)
    book = replace(book, scale=book.scale * 1.2)
    codes = book.nearest(weight() + 0.2 * weight(1))
    way, start = LearnedStep(codec).start(WeightStart(weight(), CodedWeight(codes, book)))
    assert torch.equal(way(start), book.values(codes))
    assert torch.equal(way.coded(start).decode(), way(start))


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_gradients_are_those_of_lsq(codec: Uniform) -> None:
    way, start = LearnedStep(codec).start(WeightStart(weight()))
    assert isinstance(way, LearnedStepWeight)
    with torch.no_grad():
        way.growth += 0.2 * torch.randn(way.growth.shape, generator=torch.Generator().manual_seed(4))
    latent = start.clone().requires_grad_(True)
    upstream = weight(2)
    (way(latent) * upstream).sum().backward()
    with torch.no_grad():
        book = way.book()
        scale, offset = book.spread(book.scale, 48), book.spread(book.offset, 48)
        level = start / scale + offset
        inside = (level >= book.levels[0]) & (level <= book.levels[-1])
        rounded = book.levels[book.nearest(start).long()]
        slope = torch.where(inside, rounded - level, rounded - offset)  # d value / d scale
        own = upstream * slope * scale  # scale = start * exp(growth)
        groups = book.scale.shape[1]
        expected = torch.stack([own[:, part].sum(1) for part in torch.arange(48).tensor_split(groups)], 1)
    assert latent.grad is not None and way.growth.grad is not None
    torch.testing.assert_close(latent.grad, upstream * inside)
    torch.testing.assert_close(way.growth.grad, expected, rtol=1e-4, atol=1e-4)


def test_a_scale_stays_positive_however_far_it_is_pushed() -> None:
    way, _ = LearnedStep(Uniform(4)).start(WeightStart(weight()))
    assert isinstance(way, LearnedStepWeight)
    with torch.no_grad():
        way.growth -= 30.0
    assert bool((way.book().scale > 0).all())


def test_a_wide_start() -> None:
    way, start = LearnedStep(Uniform(4, symmetric=True), spread=1.3).start(WeightStart(weight()))
    assert isinstance(way, LearnedStepWeight)
    torch.testing.assert_close(way.book().scale[:, 0], 1.3 * weight().std(1))
    assert torch.equal(start, weight())


def test_what_has_no_scale_to_learn_is_refused_with_the_call_that_works() -> None:
    for codec in (KMeans(2, per="row", scaled=False), PowerOfTwo(3, power_of_two_scale=True)):
        with pytest.raises(ConfigError, match="StraightThrough"):
            LearnedStep(codec).start(WeightStart(weight()))
    with pytest.raises(ConfigError, match="spread="):
        LearnedStep(Uniform(4), spread=-1.0)
