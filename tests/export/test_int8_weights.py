"""Int8 steps of weights: rows on a grid keep their values, others are rounded well."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import corank
from corank.calibration import Samples
from corank.codecs import Uniform
from corank.export.graph import coded_layers
from corank.export.int8_weights import int8_weights, row_steps

onnx = pytest.importorskip("onnx")


@pytest.mark.parametrize(
    "codec",
    [Uniform(2, half=True, range="mse"), Uniform(3), Uniform(4, half=True, range="mse"), Uniform(4, symmetric=True)],
)
@pytest.mark.parametrize("largest", [127, 64])
def test_rows_of_few_bits_keep_their_values(codec: Uniform, largest: int) -> None:
    weight = torch.randn(12, 200)
    book = codec.fit(weight)
    values = book.values(book.nearest(weight)).numpy()
    codes = values / row_steps(values, largest)[:, None]
    assert np.abs(codes).max() <= largest
    assert np.abs(codes - np.rint(codes)).max() < 1e-3


def test_other_rows_use_all_codes() -> None:
    weight = torch.randn(5, 300).numpy()
    assert np.allclose(row_steps(weight, 127), np.abs(weight).max(1) / 127)


def test_rows_of_one_value_or_none() -> None:
    weight = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [-2.0, 0.0, 2.0]], np.float32)
    steps = row_steps(weight, 127)
    assert (steps > 0).all() and np.isfinite(steps).all()
    codes = np.rint(weight / steps[:, None])
    assert np.allclose(codes * steps[:, None], weight, rtol=1e-3)


@pytest.fixture(scope="module")
def inputs() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(64, 12, generator=generator) @ torch.randn(12, 12, generator=generator)


def coded(inputs: Tensor, **settings: object) -> nn.Module:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 6)).eval()
    return corank.quantize(model, inputs, preset="nearest", search="uniform", **settings)  # pyright: ignore


def test_layers_without_adapters_are_exact(inputs: Tensor) -> None:
    model = coded(inputs, bits=4, budget=0.0, all_layers=True)
    for name, weight in int8_weights(model, coded_layers(model), Samples.of(inputs, 64), 127).items():
        composed = model.get_submodule(name).weight
        assert isinstance(composed, Tensor)
        assert torch.allclose(weight.values, composed, rtol=0, atol=1e-3 * float(weight.steps.max()))


def test_layers_with_adapters_are_rounded_for_their_inputs(inputs: Tensor) -> None:
    model = coded(inputs, bits=2, budget=4.0, all_layers=True)
    layer = coded_layers(model)["0"]
    weight = int8_weights(model, {"0": layer}, Samples.of(inputs, 64), 15)["0"]
    steps = torch.from_numpy(weight.steps)[:, None]
    nearest = (layer.weight / steps).round().clamp(-15, 15) * steps
    lost = ((weight.values - layer.weight) @ inputs.T).square().sum()
    assert float(lost) < 0.8 * float(((nearest - layer.weight) @ inputs.T).square().sum())
    assert float((weight.values / steps).abs().max()) <= 15.001
