"""S3: seven values, the true derivative of the shift by hand, starts, and the codes that ship."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from reference.levels import s3

from corank.codecs import S3Shift
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError
from corank.training.weights import S3Latents, TrainableWeight, WeightStart

PATTERNS = list(itertools.product((-1, 1), (0, 1), (0, 1), (0, 1)))


def of_latents(signs: torch.Tensor, present: torch.Tensor, shifts: torch.Tensor) -> TrainableWeight:
    """The running form with these latents, in units of its smallest value."""
    running, _ = S3Latents().start(WeightStart(torch.randn_like(signs), fresh=True))
    with torch.no_grad():
        for name, latent in (("signs", signs), ("present", present), ("shifts", shifts)):
            running.get_parameter(name).copy_(latent)
        running.get_buffer("scale").fill_(4.0)
    return running


def test_values_and_codes_are_the_seven_of_three_bits() -> None:
    latents = torch.tensor([[2.0 * (one > 0) - 1 for one in pattern] for pattern in PATTERNS]).T[:, None]
    running = of_latents(latents[0], latents[1], latents[2:])
    with torch.no_grad():
        value, coded = running(latents[0]), running.coded(latents[0])
    assert value[0].tolist() == [float(a * b * 2 ** (c * (d + 1))) for a, b, c, d in PATTERNS]
    assert value.unique().tolist() == s3() == [-4, -2, -1, 0, 1, 2, 4]
    assert torch.equal(coded.decode(), value) and len(coded.codes.unique()) == 7 and int(coded.codes.max()) < 8


def test_exact_zeros_are_positive_and_on() -> None:
    zero = torch.zeros(2, 3)
    assert bool((of_latents(zero, -zero, torch.zeros(2, 2, 3))(zero) == 4).all())


@pytest.mark.parametrize("pattern", PATTERNS)
def test_backward_is_the_true_derivative_by_hand(pattern: tuple[int, int, int, int]) -> None:
    sigma, present, b1, b2 = pattern
    latents = torch.tensor([7.0 * (2 * (one > 0) - 1) for one in pattern])[:, None, None]  # nothing is clipped
    running = of_latents(latents[0], latents[1], latents[2:])
    upstream, power = 0.7, 2.0 ** (b1 * (b2 + 1))
    running(torch.zeros(1, 1)).backward(torch.tensor([[upstream]]))
    of_shift = upstream * sigma * present * power * math.log(2)
    assert float(running.get_parameter("signs").grad) == pytest.approx(upstream * present * power)
    assert float(running.get_parameter("present").grad) == pytest.approx(upstream * sigma * power)
    assert running.get_parameter("shifts").grad.flatten().tolist() == pytest.approx(
        [of_shift * (b2 + 1), of_shift * b1]
    )


def test_the_start_from_scratch() -> None:
    weight = 0.05 * torch.randn(200, 288)
    running, value = S3Latents().start(WeightStart(weight, seed=3, fresh=True))
    for name, latent in running.named_parameters():
        assert name in running.latents and float(latent.detach().std()) == pytest.approx((2 / 288) ** 0.5, rel=0.05)
    assert 0.7 < float(value.square().mean().sqrt() / 0.05) < 1.42
    assert float((value == 0).float().mean()) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("group", [-1, 0])
def test_starts_from_codes_and_from_float_give_exactly_those(group: int) -> None:
    way = S3Latents(group=group)
    weight = 0.1 * torch.randn(6, 40)
    weight[0, :9] = 0.0
    book = way.stored.fit(weight)
    _, value = way.start(WeightStart(weight))
    assert torch.equal(value, book.values(book.nearest(weight)))
    codes = torch.randint(0, 7, (6, 40), dtype=torch.uint8)  # far from the weight's own
    running, value = way.start(WeightStart(weight, CodedWeight(codes, book)))
    with torch.no_grad():
        assert torch.equal(value, book.values(codes)) and torch.equal(running(weight), value)
    assert torch.equal(running.coded(weight).codes, codes) and running.codec == way.stored


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="S3Shift takes 3"):
        S3Latents(2)
    with pytest.raises(ConfigError, match="above zero"):
        S3Latents(octave=-1.0)
    assert S3Latents().with_codec(S3Shift(3, -1, True)) == S3Latents()
    with pytest.raises(ConfigError, match="ends in S3Shift"):
        S3Latents().with_codec(S3Shift(3))
