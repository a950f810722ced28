"""A latent layer starts as the coded layer, and what it hardens to is what a coded layer can hold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from corank import Gptq, LayerPlan, Nearest, Uniform
from corank.coding.install import coded_module
from corank.coding.layer import code_layer
from corank.layers import CodedLayer, PreparedModel
from corank.matrix import Geometry
from corank.refine import Refinement
from corank.refine.trainable_layer import TrainableLayer
from corank.statistics import Gram

LAYERS = [
    nn.Linear(12, 7),
    nn.Conv2d(4, 6, 3),
    nn.Conv2d(6, 6, 3, groups=3, padding=1),
    nn.ConvTranspose2d(4, 6, 2, stride=2),
    nn.Conv1d(3, 5, 3, dilation=2),
]
CODECS = [Uniform(2), Uniform(3, range="mse", group=5), Uniform(1, symmetric=True), Uniform(2, group=-1)]


def coded(layer: nn.Module, codec: Uniform, rank: int) -> CodedLayer:
    geometry = Geometry.of(layer)
    groups, _, columns = geometry.matrix_shape
    gram = Gram(groups, columns)
    gram.update(torch.randn(groups, 100, columns), 100)
    prepared = PreparedModel(layer, {"it": layer})
    weight, bias = prepared.weight("it"), prepared.bias("it")
    rounder = Nearest() if codec.bits == 1 else Gptq()
    result = code_layer(weight, bias, LayerPlan(codec, rounder, rank=rank, fit="output"), {Gram: gram})
    module = coded_module(layer, result)
    assert isinstance(module, CodedLayer)
    return module


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("code_rate", [0.0, 0.03])
def test_starts_exactly_as_the_coded_layer(layer: nn.Module, codec: Uniform, rank: int, code_rate: float) -> None:
    module = coded(layer, codec, rank)
    latent = TrainableLayer(module, Refinement(code_rate=code_rate))
    assert torch.allclose(latent.weight(), module.weight, atol=1e-5)
    if not rank:
        assert torch.equal(latent.weight(), module.weight)
    before = module.weight.clone()
    module.fill(latent.harden(), None)
    assert torch.allclose(module.weight, before, atol=2e-3 * float(before.abs().max()) if rank else 0)


def test_gradients_of_scales_and_factors_are_the_derivatives() -> None:
    """Central differences of the scales' factors; the adapter's are straight through and compared by hand."""
    module = coded(nn.Conv2d(3, 4, 3), Uniform(2), 2)
    latent = TrainableLayer(module, Refinement(code_rate=0.0))
    direction = torch.randn(4, 3, 3, 3)
    (latent.weight() * direction).sum().backward()
    given = latent.gains["scale"].grad
    assert given is not None
    for row in range(4):
        ends = []
        for move in (1e-2, -1e-2):
            with torch.no_grad():
                latent.gains["scale"][row, 0] += move
                ends.append(float((latent.weight() * direction).sum()))
                latent.gains["scale"][row, 0] -= move
        assert float(given[row, 0]) == pytest.approx((ends[0] - ends[1]) / 2e-2, rel=1e-2, abs=1e-4)
    left, right = latent._rounded_factors()
    matrix = direction.reshape(1, 4, 27)
    assert latent.factors[0].grad is not None and latent.factors[1].grad is not None
    assert torch.allclose(latent.factors[0].grad, matrix @ right.transpose(1, 2) * latent._sizes[0], rtol=1e-4)
    assert torch.allclose(latent.factors[1].grad, left.transpose(1, 2) @ matrix * latent._sizes[1], rtol=1e-4)


def test_a_latents_gradient_passes_straight_through_and_stops_at_the_ends() -> None:
    module = coded(nn.Linear(10, 4), Uniform(2), 0)
    latent = TrainableLayer(module, Refinement(code_rate=0.03))
    assert latent.latent is not None
    with torch.no_grad():
        latent.latent[0, 0], latent.latent[1, 1] = 3.4, -0.2
    direction = torch.randn(4, 10)
    (latent.weight() * direction).sum().backward()
    scale = module.code().weight.codebook.tensors()["scale"].float().reshape(4, 1)
    expected = direction * scale
    expected[0, 0] = expected[1, 1] = 0
    assert latent.latent.grad is not None
    assert torch.allclose(latent.latent.grad, expected, rtol=1e-5)


def test_codes_follow_their_latents_and_stay_in_range() -> None:
    module = coded(nn.Linear(10, 4), Uniform(2), 0)
    latent = TrainableLayer(module, Refinement(code_rate=0.03))
    assert latent.latent is not None
    with torch.no_grad():
        latent.latent[0, :3] = Tensor([7.0, -3.0, 1.6])
    codes = latent.harden().weight.codes
    assert codes.dtype == torch.uint8
    assert codes[0, :3].tolist() == [3, 0, 2]
    assert torch.equal(codes[1:], module.code().weight.codes[1:])


def test_a_scale_that_cannot_be_stored_is_left_as_it_was() -> None:
    module = coded(nn.Linear(10, 4), Uniform(2), 0)
    latent = TrainableLayer(module, Refinement(code_rate=0.0))
    with torch.no_grad():
        gain = latent.gains["scale"]
        gain[0], gain[1], gain[2] = -1.0, 1e9, float("nan")
        gain[3] = 1.5
    before = module.code().weight.codebook.tensors()["scale"].float()
    after = latent.harden().weight.codebook.tensors()["scale"].float()
    assert torch.equal(after[:3], before[:3])
    assert torch.allclose(after[3], before[3] * 1.5, rtol=1e-3)
