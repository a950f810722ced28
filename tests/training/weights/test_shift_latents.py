"""What DenseShift and S3 share: bits and signs of latents, draws, a fresh weight's power of two, codes of others."""

from __future__ import annotations

import pytest
import torch

from corank.codecs import DenseShift, KMeans, S3Shift
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError
from corank.training.weights import DenseShiftLatents, S3Latents, WeightStart, WeightTraining
from corank.training.weights.shift_latents import bit, drawn, fresh_book, octaves, sign


def test_zero_is_on_and_positive_and_gradients_are_never_clipped() -> None:
    latent = torch.tensor([-50.0, -1e-3, -0.0, 0.0, 1e-3, 50.0], requires_grad=True)
    assert bit(latent).tolist() == [0, 0, 1, 1, 1, 1]
    assert sign(latent).tolist() == [-1, -1, 1, 1, 1, 1]
    factors = torch.arange(1.0, 7.0)
    for one in (bit, sign):
        (gradient,) = torch.autograd.grad((one(latent) * factors).sum(), latent)
        assert torch.equal(gradient, factors)


def test_draws_are_of_the_seed_alone() -> None:
    shapes = {"signs": (30, 40), "shifts": (3, 30, 40)}
    one, again = (drawn(shapes, 1e-3, WeightStart(torch.ones(30, 40), seed=4, fresh=True)) for _ in range(2))
    other = drawn(shapes, 1e-3, WeightStart(torch.ones(30, 40), seed=5, fresh=True))
    assert all(torch.equal(one[name], again[name]) and not torch.equal(one[name], other[name]) for name in shapes)
    assert float(one["shifts"].std()) == pytest.approx(1e-3, rel=0.05) and one["shifts"].shape == (3, 30, 40)


@pytest.mark.parametrize("size", [1e-9, 0.03, 1.0, 1e9])
def test_the_unit_of_a_fresh_weight_is_the_closest_power_of_two(size: float) -> None:
    weight = size * torch.randn(6, 50)
    book = fresh_book(DenseShift(3, -1, True), weight, 0.5)
    assert book.scale.shape == (1, 1) and float(book.scale.frexp().mantissa) == 0.5
    wanted = float(weight.square().mean().sqrt().log2()) + 1
    assert abs(float(book.scale.log2()) - min(max(wanted, -24), 15)) <= 0.5
    assert fresh_book(DenseShift(3, 0, True), torch.zeros(6, 50), 0.5).scale.tolist() == [[2.0**-24]] * 6


def test_octaves_stay_inside_the_cells_of_the_codes() -> None:
    book = DenseShift(3, -1, True).codebook({"exponent": torch.tensor([27.0])}, 1, 4)  # 1, 2, 4, 8
    shift = torch.tensor([[0.0, 1.0, 3.0, 2.0]])
    found = octaves(book, shift, torch.tensor([[0.0, 2.0, 100.0, -1.0]]))
    assert torch.allclose(found, torch.tensor([[-0.45, 1.0, 3.45, 1.55]]))


@pytest.mark.parametrize("way", [DenseShiftLatents(3), S3Latents()])
def test_codes_of_another_codec_are_no_start(way: WeightTraining) -> None:
    weight = torch.randn(4, 9)
    for codec in (KMeans(3), S3Shift(3) if isinstance(way, DenseShiftLatents) else DenseShift(3)):
        book = codec.fit(weight)
        with pytest.raises(ConfigError, match="codes to start from are not of"):
            way.start(WeightStart(weight, CodedWeight(book.nearest(weight), book)))
