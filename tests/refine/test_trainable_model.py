"""What trains in a network of any dtype: everything, and in a precision that keeps small steps."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.losses import output_distance
from corank.models.digits import digits_net
from corank.refine.refinement import Refinement
from corank.refine.trainable_model import TrainableModel

DTYPES = (torch.float64, torch.bfloat16, torch.float16)
HOW = Refinement(code_rate=0.01, drop=0.0)


@pytest.fixture(scope="module")
def coded(images: Tensor) -> nn.Module:
    """With adapters and rounded inputs, so that everything that can train is there."""
    return corank.quantize(digits_net(), images, bits=2, budget=0.25, activations=4, preset="nearest", samples=64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_that_trains_gets_a_gradient_in_every_dtype(coded: nn.Module, images: Tensor, dtype: torch.dtype) -> None:
    model = copy.deepcopy(coded).to(dtype)
    student = TrainableModel(model, HOW)
    batch = images[:16].to(dtype)
    with torch.no_grad():
        reference = model(batch)
        torch.testing.assert_close(student(batch), reference, atol=0.05, rtol=0.05)
    expected = torch.randn_like(reference).float()
    output_distance(student(batch).float(), expected).backward()
    kinds = {name.split(":")[0]: 0 for name, _, _ in student.trained()}
    for name, parameter, _ in student.trained():
        assert parameter.dtype.itemsize >= 4, name
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
        kinds[name.split(":")[0]] += bool(parameter.grad.any())
    assert set(kinds) == {"vector", "gain_scale", "input_gain", "latent", "left", "right"} and all(kinds.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_vectors_take_steps_below_their_precision(coded: nn.Module, images: Tensor, dtype: torch.dtype) -> None:
    model = copy.deepcopy(coded).to(dtype)
    student = TrainableModel(model, HOW)
    name, vector = next(iter(student.vectors.items()))
    with torch.no_grad():
        for _ in range(64):
            vector.add_(2.0**-14)
    student.harden_into(model)
    moved = model.get_parameter(name) - copy.deepcopy(coded).to(dtype).get_parameter(name)
    assert float(moved.abs().max()) > 2.0**-9
    with torch.no_grad():  # and what is run with is what ships
        torch.testing.assert_close(student(images[:4].to(dtype)), model(images[:4].to(dtype)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_refinement_brings_a_half_model_nearer(images: Tensor, dtype: torch.dtype) -> None:
    how = Refinement(iterations=20, augment=False)
    model = digits_net().to(dtype)
    small = corank.quantize(
        model, images.to(dtype), bits=2, budget=0, samples=64, preset="nearest", refinement=how, loss=distance
    )
    last = small.corank_run.history[-1]
    assert last["after"] < 0.9 * last["before"]
    assert {parameter.dtype for parameter in small.parameters()} == {dtype}


def distance(output: Tensor, reference: Tensor) -> Tensor:
    return output_distance(output.float(), reference.float())
