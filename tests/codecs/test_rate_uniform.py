"""Equal steps under a rate: the entropy that is promised, by counting; and less error for the same bits."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.codecs import RateUniform, Uniform
from corank.errors import ConfigError
from corank.testing import check_codec


def entropy(codes: Tensor) -> float:
    """By counting."""
    counts = Counter(codes.flatten().tolist())
    return -sum(count / codes.numel() * math.log2(count / codes.numel()) for count in counts.values())


@pytest.mark.parametrize(("bits", "rate"), [(2, 0.0), (3, 0.5), (4, 0.0), (4, 2.7), (6, 0.0), (8, 5.5)])
def test_conformance(bits: int, rate: float) -> None:
    check_codec(RateUniform(bits, rate))


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0, 1.4, 2.0, 3.1, 4.0])
@pytest.mark.parametrize("kind", ["normal", "uniform", "heavy"])
def test_the_entropy_is_just_under_the_rate(kind: str, rate: float) -> None:
    draws = {"normal": torch.randn(40, 250), "uniform": torch.rand(40, 250) - 0.5, "heavy": torch.randn(40, 250) ** 3}
    codec = RateUniform.of(rate)
    codebook = codec.fit(draws[kind])
    found = entropy(codebook.nearest(draws[kind]))
    assert found <= rate + 0.002  # the step is kept in fp16
    if kind != "heavy":  # there a wider step may lose less, as nothing far out is cut off
        assert found >= rate - 0.06
    finer = draws[kind] / (0.9 * float(codebook.scale))
    assert kind == "heavy" or entropy(finer.round()) > rate


def test_steps_are_equal_and_there_is_one_for_the_weight() -> None:
    weight = torch.randn(6, 30)
    codebook = RateUniform(4).fit(weight)
    assert codebook.scale.numel() == 1 and codebook.size_bits == 16
    whole = codebook.values(codebook.nearest(weight)) / codebook.scale
    assert torch.equal(whole, whole.round()) and float(whole.abs().max()) <= 7


@pytest.mark.parametrize(("rate", "share"), [(2.0, 0.85), (3.0, 0.80)])
def test_less_error_than_codes_of_a_fixed_width_at_the_same_bits(rate: float, share: float) -> None:
    """Theory, for a normal source at 2 bits: 10.55 dB against 9.3 of the best four levels."""
    weight = torch.randn(50, 400)
    errors = []
    for codec in (RateUniform.of(rate), Uniform(int(rate), range="mse", half=True)):
        codebook = codec.fit(weight)
        errors.append(float((codebook.values(codebook.nearest(weight)) - weight).square().mean()))
    assert errors[0] < share * errors[1]


def test_the_theory_of_high_rates() -> None:
    weight = torch.randn(100, 1000)
    for rate in (3.0, 4.0):
        codebook = RateUniform(8, rate).fit(weight)
        error = float((codebook.values(codebook.nearest(weight)) - weight).square().mean())
        best = 2 ** (-2 * rate)  # the distortion-rate function of unit variance
        assert 10 * math.log10(error / best) == pytest.approx(1.53, abs=0.1)


def test_one_weight_far_out_is_not_cut_off_where_that_loses_more() -> None:
    weight = torch.randn(20, 50) * 0.01
    weight[3, 7] = 5.0
    codebook = RateUniform(4, 2.0).fit(weight)
    assert float(codebook.values(codebook.nearest(weight))[3, 7]) == pytest.approx(5.0, rel=0.2)


def test_a_sample_of_a_large_weight_is_enough() -> None:
    weight = torch.randn(600, 4000)
    found = RateUniform(4, 2.0).fit(weight)
    assert entropy(found.nearest(weight[:, ::7])) == pytest.approx(2.0, abs=0.02)


@pytest.mark.parametrize("fields", [{"bits": 1}, {"bits": 9}, {"rate": -1}, {"rate": 9}, {"rate": "2"}, {"rate": True}])
def test_refusals(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RateUniform(**fields)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [
        nn.Linear(24, 64),
        nn.ReLU(),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, 8),
    ]
    return nn.Sequential(*layers).eval()


def test_a_rate_in_quantize_is_the_size_of_the_file(tmp_path: Path) -> None:
    model, images = network(), torch.randn(128, 24)
    sizes = {}
    for rate in (1.5, 3.0):
        small = corank.quantize(model, images, rate=rate, preset="fast", samples=128)
        corank.save(small, tmp_path / "small.safetensors")
        about = corank.inspect(tmp_path / "small.safetensors", codes=True)
        inner = [layer for layer in about["layers"] if layer["name"] in ("2", "4")]
        assert [layer["rank"] for layer in inner] == [0, 0]
        assert sum(layer["file_bits_per_weight"] for layer in inner) / 2 == pytest.approx(rate, abs=0.4)
        sizes[rate] = about["stored_bytes"]
        again = corank.load(tmp_path / "small.safetensors", network())
        assert torch.equal(again(images), small(images))
    assert sizes[1.5] < sizes[3.0]


@pytest.mark.parametrize("other", [{"bits": 3}, {"codec": "kmeans"}, {"size": "9KB"}])
def test_a_rate_says_how_codes_are_made(other: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="rate and"):
        corank.quantize(network(), torch.randn(8, 24), rate=2.0, **other)
    for wrong in (0, 7, "2", True):
        with pytest.raises(ConfigError, match="bits a weight"):
            corank.quantize(network(), torch.randn(8, 24), rate=wrong)  # pyright: ignore[reportArgumentType]


def test_an_exception_of_whole_bits_is_a_rate_of_its_own() -> None:
    small = corank.quantize(network(), torch.randn(64, 24), rate=2.0, layers={"2": 4, "4": 8})
    plans = small.corank_run.plan.layers
    assert plans["2"].codec == RateUniform.of(4) and plans["4"].codec == RateUniform.of(8)


@pytest.mark.parametrize("size", [1e-42, 1e-40, 1e-30, 1e-12, 3e-9])
@pytest.mark.parametrize("rate", [0.1, 2.0, 6.0])
def test_weights_below_every_step_become_zero_at_once(size: float, rate: float) -> None:
    """fp16 holds no step below 2^-24, so there is nothing to look for: narrower ones would never end the search."""
    weight = torch.randn(8, 50) * size
    codebook = RateUniform.of(rate).fit(weight)
    assert float(codebook.scale) == 2.0**-24
    assert not bool(codebook.values(codebook.nearest(weight)).any())


def test_networks_with_a_layer_of_denormal_weights() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    model[2].weight.data *= 1e-41
    small = corank.quantize(model, torch.randn(64, 6), rate=2.0)
    assert bool(torch.isfinite(small(torch.randn(4, 6))).all())
    assert not bool(small.get_submodule("2").weight.any())


def test_a_step_keeps_to_the_rate_as_counted_code_by_code() -> None:
    weight = torch.randn(60, 70, generator=torch.Generator().manual_seed(3))
    for rate in (0.7, 2.0, 3.5):
        codebook = RateUniform.of(rate).fit(weight)
        shares = torch.bincount(codebook.nearest(weight).flatten().long()).float() / weight.numel()
        entropy = float(-(shares[shares > 0] * shares[shares > 0].log2()).sum())
        assert rate - 0.2 < entropy <= rate + 0.01
