"""Trellis codes: one value a code, a step that keeps to the rate, and less error than plain codes at equal bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import corank
from corank.codecs import CODECS, RateUniform, Trellis
from corank.codecs.trellis import counted, prices, settled
from corank.errors import ConfigError
from corank.kernels.trellis import Chain, cheapest_path
from corank.presets import keeps_to_rate
from corank.rounding import Dependent
from corank.testing import check_codec


@pytest.mark.parametrize(("bits", "rate", "states"), [(4, 0.5, 4), (6, 0.0, 8), (8, 5.5, 4)])
def test_conformance(bits: int, rate: float, states: int) -> None:
    check_codec(Trellis(bits, rate, states))


def test_registered() -> None:
    assert CODECS["trellis"] is Trellis
    assert Trellis.of(2.0).most == 2.0 and Trellis(6).most == 3 and Trellis.of(2.0).largest_rate == 3.5
    assert Trellis(states=4).at_rate(1.0) == Trellis(5, 1.0, 4)
    assert Trellis.of(3.0).for_bits(2).rate == 2.0


def bits_and_error(weights: torch.Tensor, codec: Trellis) -> tuple[float, float]:
    """Bits by the entropy in each grid, error in dB of the weights' energy."""
    step = float(codec.fit(weights[None]).scale)
    targets, most = weights.double().numpy() / step, 2 ** (codec.bits - 1) - 1
    counts, _ = settled(targets, codec.states, codec.price, most=most)
    path = cheapest_path(Chain(targets, np.ones(len(targets))), codec.price * prices(counts), codec.states)
    counts = counted(*path, codec.states, most)
    shares = counts / counts.sum(1, keepdims=True)
    bits = -float((counts * np.log2(np.maximum(shares, 1e-30))).sum()) / len(targets)
    return bits, 10 * float(np.log10(((targets - path[0]) ** 2).mean() / (targets**2).mean()))


@pytest.mark.parametrize(("rate", "scalar", "best"), [(1.0, -4.65, -5.33), (2.0, -10.50, -11.46)])
def test_most_of_the_gain_that_there_is(rate: float, scalar: float, best: float) -> None:
    """Of a normal source, where the best plain codes and the best of eight states are known."""
    weights = torch.randn(30000, generator=torch.Generator().manual_seed(0))
    found = [bits_and_error(weights, Trellis(rate=rate, states=states, price=0.5)) for states in (4, 8)]
    for bits, _ in found:
        assert bits == pytest.approx(rate, abs=0.1)
    four, eight = (error + 6.02 * (bits - rate) for bits, error in found)  # at the rate, by 6 dB a bit
    assert eight < four < scalar - 0.35
    assert eight == pytest.approx(best, abs=0.1)


def test_nearest_is_of_both_grids() -> None:
    codebook = Trellis.of(2.0).fit(torch.randn(4, 50))
    values = codebook.values(codebook.nearest(torch.tensor([[0.0, 1.0, 2.0, -3.0]]) * float(codebook.scale)))
    assert torch.equal(values / codebook.scale, torch.tensor([[0.0, 1.0, 2.0, -3.0]]))
    assert float(codebook.scale) < float(RateUniform.of(2.0).fit(torch.randn(4, 50)).scale)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"bits": 3}, "4 to 8"),
        ({"rate": 9.0}, "0.1 to 8"),
        ({"states": 5}, "4 or 8"),
        ({"price": -1.0}, "squared steps"),
    ],
)
def test_refusals(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Trellis(**fields)


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.ReLU(), nn.Conv2d(24, 24, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(96, 4),
    ).eval()  # fmt: skip


def test_a_network_at_a_rate(tmp_path: Path) -> None:
    model, images = network(), torch.randn(40, 3, 8, 8)
    small = corank.quantize(model, images, rate=1.5, codec="trellis")
    plans = small.corank_run.plan.layers  # pyright: ignore[reportAttributeAccessIssue]
    assert [type(plans[name].codec) for name in ("0", "2", "4", "7")] == [RateUniform, Trellis, Trellis, RateUniform]
    assert isinstance(plans["2"].rounder, Dependent)
    size = corank.save(small, tmp_path / "small.safetensors")
    again = corank.load(tmp_path / "small.safetensors", network())
    assert torch.equal(again(images), small(images))
    about = corank.inspect(tmp_path / "small.safetensors")
    assert [layer["coder"] for layer in about["layers"]][1:3] == ["adaptive"] * 2
    assert about["stored_bytes"] == size < corank.save(small, tmp_path / "other.safetensors", coder="deflate")
    assert corank.diff(small, tmp_path / "small.safetensors")["equal"]


def test_a_size_at_a_rate_that_is_found(tmp_path: Path) -> None:
    small = corank.quantize(network(), torch.randn(40, 3, 8, 8), rate="auto", size=4500, codec=Trellis(states=4))
    assert 4000 < corank.save(small, tmp_path / "small.safetensors") <= 4500
    codec = small.corank_run.plan.layers["2"].codec  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(codec, Trellis) and codec.states == 4


def test_rates_are_of_codecs_that_keep_to_one() -> None:
    with pytest.raises(ConfigError, match="rate and codec were given"):
        corank.quantize(network(), torch.randn(8, 3, 8, 8), rate=2.0, codec="ternary")
    assert keeps_to_rate("trellis") and keeps_to_rate(RateUniform()) and not keeps_to_rate("kmeans")
    assert not keeps_to_rate(None)
