"""Block reconstruction on the network that ships with the package, and its parts by themselves."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.calibration import Context, Samples
from corank.layers import CodedLayer, PreparedModel
from corank.models.digits import digits_net
from corank.refine.blocks import BlockReconstruction, _Soft, _wide, blocks_of, reconstruct


@pytest.fixture(scope="module")
def rough(images: Tensor) -> nn.Module:
    return corank.quantize(digits_net(), images, bits=2, budget=0, preset="nearest")


def test_blocks_are_the_smallest_modules_of_several_layers(rough: nn.Module) -> None:
    found = blocks_of(rough)
    layers = [name for names in found.values() for name in names]
    assert sorted(layers) == sorted(name for name, module in rough.named_modules() if isinstance(module, CodedLayer))
    assert found["head"] == ["head"]
    for block, names in found.items():
        if len(names) > 1:
            assert all(name.startswith(f"{block}.") for name in names)
            inner = [name.split(".")[: block.count(".") + 2] for name in names]
            assert len({tuple(part) for part in inner}) > 1  # else a smaller module would do
    assert any(len(names) > 1 for names in found.values())


def test_a_soft_layer_starts_at_the_float_weight_and_hardens_to_a_neighbour(
    rough: nn.Module, teacher: nn.Module
) -> None:
    names = [name for name, module in rough.named_modules() if isinstance(module, CodedLayer)]
    layer, weight = copy.deepcopy(rough.get_submodule(names[1])), teacher.get_submodule(names[1]).weight
    assert isinstance(layer, CodedLayer) and isinstance(weight, Tensor)
    soft = _Soft(layer, weight)
    book = layer.code().weight.codebook
    matrix = layer.geometry.to_matrix(weight.detach()).flatten(0, 1)
    below, above = book.neighbours(matrix)
    clipped = matrix.clamp(book.values(below), book.values(above))
    assert torch.allclose(layer.geometry.to_matrix(soft.weight()).flatten(0, 1), clipped, atol=1e-5)
    assert torch.equal(soft.harden().weight.codes, book.nearest(matrix))
    with torch.no_grad():
        soft.latent.copy_(torch.randn_like(soft.latent))
    assert torch.equal(soft.harden().weight.codes, torch.where(soft.latent > 0, above, below))


def test_the_regulariser_is_least_where_all_is_decided(rough: nn.Module, teacher: nn.Module) -> None:
    layer, weight = rough.get_submodule("head"), teacher.get_submodule("head").weight
    assert isinstance(layer, CodedLayer) and isinstance(weight, Tensor)
    soft = _Soft(layer, weight)
    with torch.no_grad():
        soft.latent.fill_(50.0)
    assert float(soft.undecided(2.0).detach()) == 0
    with torch.no_grad():
        soft.latent.fill_(0.0)
    assert float(soft.undecided(2.0).detach()) == pytest.approx(soft.latent.numel())


@pytest.mark.parametrize("drop", [0.0, 0.5])
def test_brings_every_block_nearer(rough: nn.Module, teacher: nn.Module, images: Tensor, drop: float) -> None:
    model = copy.deepcopy(rough)
    how = BlockReconstruction(80, 32, learning_rate=1e-2, drop=drop)
    history = reconstruct(model, teacher, how, Context(PreparedModel(teacher), Samples.of(images, 256), seed=1))
    assert len(history) == len(blocks_of(model))
    assert sum(entry["after"] < entry["before"] for entry in history) > len(history) // 2
    with torch.no_grad():
        lost = [float((one(images) - teacher(images)).square().mean()) for one in (rough, model)]
    assert lost[1] < 0.7 * lost[0]


def test_scales_and_biases_stay_and_seeds_decide(rough: nn.Module, teacher: nn.Module, images: Tensor) -> None:
    how = BlockReconstruction(10, 32, learning_rate=5e-2)
    found = []
    for seed in (1, 1, 2):
        model = copy.deepcopy(rough)
        reconstruct(model, teacher, how, Context(PreparedModel(teacher), Samples.of(images, 256), seed=seed))
        found.append(model)
    assert torch.equal(found[0](images), found[1](images))
    assert not torch.equal(found[0](images), found[2](images))
    before, after = rough.state_dict(), found[0].state_dict()
    kept = [name for name in before if name.endswith(("scale", "bias"))]
    assert kept and all(torch.equal(before[name], after[name]) for name in kept)


@pytest.mark.parametrize(
    "wrong", [{"iterations": 0}, {"batch_size": 1.5}, {"learning_rate": 0.0}, {"warm_start": 1.0}, {"drop": -0.1}]
)
def test_bad_numbers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(corank.ConfigError):
        BlockReconstruction(**wrong)


def test_quantize_takes_it(images: Tensor) -> None:
    quantized = corank.quantize(
        digits_net(), images, bits=2, budget=0, preset="nearest", refinement=BlockReconstruction(iterations=3)
    )
    run = quantized.__dict__["corank_run"]
    assert run.iterations == 3 * len(blocks_of(quantized))


@pytest.mark.parametrize("drop", [0.0, 0.5])
def test_quantized_inputs_keep_their_steps(images: Tensor, drop: float) -> None:
    how = BlockReconstruction(iterations=3, drop=drop)
    given: dict[str, Any] = {"bits": 4, "budget": 0, "preset": "nearest", "activations": 4}
    plain = corank.quantize(digits_net(), images, **given)
    learned = corank.quantize(digits_net(), images, refinement=how, **given)
    steps = [
        {name: tensor for name, tensor in one.state_dict().items() if "input_" in name} for one in (plain, learned)
    ]
    assert steps[0] and all(torch.equal(steps[0][name], steps[1][name]) for name in steps[0])
    with torch.no_grad():
        assert not torch.equal(plain(images), learned(images))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_blocks_of_other_dtypes_come_nearer_too(images: Tensor, dtype: torch.dtype) -> None:
    data = images[:64].to(dtype)
    how = BlockReconstruction(12, 32, learning_rate=3e-2)
    small = corank.quantize(digits_net().to(dtype), data, bits=2, budget=0, preset="nearest", refinement=how)
    history = small.corank_run.history
    assert sum(entry["after"] < entry["before"] for entry in history) > len(history) // 2
    assert {parameter.dtype for parameter in small.parameters()} == {dtype}


def test_squares_beyond_half_precision_are_still_measured() -> None:
    far = torch.full((2, 3), 1000.0, dtype=torch.float16)
    assert torch.equal(_wide(far).square(), torch.full((2, 3), 1e6))
