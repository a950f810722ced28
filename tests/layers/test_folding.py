"""Folding in the digits that it takes: of half-precision networks as well, and only where outputs agree."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.layers.folding import agree, fold_norm
from corank.layers.prepare import prepare
from corank.matrix import Geometry

HALVES = (torch.bfloat16, torch.float16)


def network(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4))
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.3, 3)
    model[1].weight.data.uniform_(0.5, 2)
    model[1].bias.data.normal_()
    return model.eval().to(dtype)


def by_definition(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution with its norm folded, in float64."""
    conv, norm = (copy.deepcopy(model[place]).double() for place in (0, 1))
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    return conv.weight * gain[:, None, None, None], (conv.bias - norm.running_mean) * gain + norm.bias


def difference(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.detach()).norm() / other.detach().norm())


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_folded_weights_are_exact_in_float32_whatever_the_network_holds(dtype: torch.dtype) -> None:
    model = network(dtype)
    weight, bias = by_definition(model)
    images = torch.randn(2, 3, 6, 6, dtype=dtype)
    prepared = prepare(model, lambda one: one(images))
    assert prepared.folded == ("1",)
    assert prepared.targets["0"].get_parameter("weight").dtype == dtype
    assert difference(prepared.weight("0"), Geometry.of(model[0]).to_matrix(weight)) < 3e-7
    found = prepared.bias("0")
    assert found is not None and difference(found, bias) < 3e-7
    copied = prepared.copied()
    assert torch.equal(copied.weight("0"), prepared.weight("0"))
    assert list(prepared.unrounded) == ([] if dtype == torch.float32 else ["0"])


@pytest.mark.parametrize("dtype", HALVES)
def test_codes_are_those_of_the_exact_weight(dtype: torch.dtype) -> None:
    model, images = network(dtype), torch.randn(8, 3, 6, 6, dtype=dtype)
    codec = corank.Uniform(8)
    plan = corank.Plan({"0": corank.LayerPlan(codec)})
    given = corank.quantize(model, images, plan=plan).get_submodule("0").code().weight
    weight, _ = by_definition(model)
    exact = Geometry.of(model[0]).to_matrix(weight.float()).flatten(0, 1)
    assert torch.equal(given.codes, codec.fit(exact).nearest(exact))
    rounded = exact.to(dtype).float()  # what the copy itself holds has other codes
    assert dtype == torch.float16 or not torch.equal(given.codes, codec.fit(rounded).nearest(rounded))


def test_fold_norm_gives_what_it_computed() -> None:
    layer, norm = nn.Linear(3, 2).bfloat16(), nn.BatchNorm1d(2).bfloat16().eval()
    weight, bias = fold_norm(layer, norm)
    assert weight.dtype == bias.dtype == torch.float32
    assert torch.equal(layer.weight, weight.bfloat16()) and torch.equal(layer.bias, bias.bfloat16())
    layer, norm = nn.Linear(3, 2).double(), nn.BatchNorm1d(2).double().eval()
    assert fold_norm(layer, norm)[0].dtype == torch.float64


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 2e-3), (torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
def test_outputs_must_agree(dtype: torch.dtype, allowed: float) -> None:
    one = torch.ones(4, dtype=dtype)
    other = one.clone()
    other[0] += 2 * allowed * 0.9  # the norm of the outputs is 2
    assert agree([one], [other])
    other[0] += 2 * allowed * 0.4
    assert not agree([one], [other])
    other[0] = float("nan")
    assert not agree(one, other)
