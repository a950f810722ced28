"""The centre of a 3x3 kernel, split off: nothing is lost, and the coarse part rounds without error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import corank
from corank.codecs import Uniform
from corank.errors import ConfigError, ModelError
from corank.layers import CoarseFineConv2d, centre_codecs, split_centres


def fused_like(inputs: int = 6, outputs: int = 8, **settings: int) -> nn.Conv2d:
    """A convolution whose centre dominates, as after fusing a RepVGG block."""
    layer = nn.Conv2d(inputs, outputs, 3, **{"padding": 1, **settings})
    with torch.no_grad():
        layer.weight *= 0.02
        layer.weight[:, :, 1, 1] += torch.randn_like(layer.weight[:, :, 1, 1])
    return layer.requires_grad_(False)


@pytest.mark.parametrize("settings", [{}, {"stride": 2}, {"groups": 2}, {"dilation": 2, "padding": 2}])
def test_the_sum_is_the_layer(settings: dict[str, int]) -> None:
    torch.manual_seed(0)
    layer = fused_like(**settings).double()
    parts = CoarseFineConv2d(layer)
    images = torch.randn(2, 6, 9, 9, dtype=torch.float64)
    assert torch.allclose(parts(images), layer(images), atol=1e-12)
    whole = parts.fine.weight.clone()
    whole[:, :, 1, 1] += parts.coarse.weight[:, :, 0, 0]
    assert torch.allclose(whole, layer.weight, rtol=0, atol=1e-15)


@pytest.mark.parametrize("bits", [8, 6, 4])
def test_the_coarse_part_has_no_error_and_the_fine_centre_is_within_half_a_step(bits: int) -> None:
    torch.manual_seed(bits)
    layer = fused_like()
    layer.weight[3, :, 1, 1] = 0  # a row whose step is zero
    parts = CoarseFineConv2d(layer, bits)
    coarse = parts.coarse.weight.flatten(1)
    codebook = Uniform(bits, symmetric=True).fit(coarse)
    assert torch.equal(codebook.values(codebook.nearest(coarse)), coarse)
    centre, half = layer.weight[:, :, 1, 1], 2 ** (bits - 1)
    step = torch.maximum(-centre.amin(1) / half, centre.amax(1) / (half - 1))
    assert bool((parts.fine.weight[:, :, 1, 1].abs() <= 0.502 * step[:, None] + 1e-9).all())
    assert torch.equal(parts.fine.weight[:, :, 0], layer.weight[:, :, 0])


def test_int8_loses_far_less_of_a_dominated_weight() -> None:
    torch.manual_seed(0)
    layer = fused_like(32, 32)
    parts = CoarseFineConv2d(layer)

    def rounded(weight: torch.Tensor) -> torch.Tensor:
        matrix = weight.flatten(1)
        codebook = Uniform(8, symmetric=True).fit(matrix)
        return codebook.values(codebook.nearest(matrix)).view_as(weight)

    plain = rounded(layer.weight) - layer.weight
    split = rounded(parts.fine.weight)
    split[:, :, 1, 1] += rounded(parts.coarse.weight)[:, :, 0, 0]
    assert (split - layer.weight).square().mean() < plain.square().mean() / 50


def test_only_dominated_layers_are_split_and_the_network_computes_alike() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(fused_like(3, 8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1)).eval()
    split = split_centres(model)
    assert [name for name, part in split.named_modules() if isinstance(part, CoarseFineConv2d)] == ["0"]
    assert not any(isinstance(part, CoarseFineConv2d) for part in model.modules())
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(split(images), model(images), atol=1e-5)
    every = split_centres(model, dominance=0)
    assert set(centre_codecs(every)) == {"0.coarse", "0.fine", "2.coarse", "2.fine"}


def test_a_split_network_is_quantized_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(fused_like(3, 8), nn.ReLU(), fused_like(8, 8), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    split, images = split_centres(model), torch.randn(16, 3, 8, 8)
    small = corank.quantize(
        split, images, bits=8, budget=0, activations=8, preset="nearest", layers=centre_codecs(split)
    )
    assert torch.equal(small.get_submodule("0.coarse").weight, split.get_submodule("0.coarse").weight)
    corank.save(small, tmp_path / "small.safetensors")
    again = corank.load(tmp_path / "small.safetensors", split_centres(model))
    with torch.no_grad():
        assert torch.equal(again(images), small(images))
        assert (small(images) - model(images)).norm() < 0.02 * model(images).norm()


def test_errors() -> None:
    with pytest.raises(ConfigError, match="bits=1"):
        split_centres(nn.Sequential(fused_like()), bits=1)
    with pytest.raises(ModelError, match="no such layer"):
        split_centres(nn.Sequential(fused_like()), names=["3"])
    with pytest.raises(ModelError, match="cannot be split"):
        split_centres(nn.Sequential(nn.Conv2d(3, 3, 3)), names=["0"])
