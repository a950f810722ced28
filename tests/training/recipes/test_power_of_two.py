"""Power-of-two training: shifts and additions give the convolution of what trained; odd, idempotent, equivariant."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from corank.codecs import PowerOfTwo
from corank.errors import ConfigError
from corank.matrix import Geometry
from corank.training.recipes import RECIPES
from corank.training.state import TrainedLayer, parametrized
from corank.training.weights import LearnedStep, StraightThrough, WeightStart, WeightTraining


def trained(way: WeightTraining, steps: int = 8) -> tuple[nn.Conv2d, TrainedLayer]:
    """A convolution after some steps towards another one."""
    convolution, goal = nn.Conv2d(3, 5, 3, bias=False), nn.Conv2d(3, 5, 3, bias=False)
    geometry = Geometry.of(convolution)
    weight, start = way.start(WeightStart(geometry.to_matrix(convolution.weight.detach()).flatten(0, 1)))
    layer = TrainedLayer(convolution, geometry, weight)
    parametrized(layer)
    layer.rewrite(start)
    optimizer = torch.optim.AdamW(convolution.parameters(), lr=0.01)
    for step in range(steps):
        images = torch.randn(8, 3, 6, 6)
        optimizer.zero_grad()
        (convolution(images) - goal(images).detach()).square().mean().backward()
        optimizer.step()
        weight.after_step(layer.matrix.detach(), step)
    return convolution, layer


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_shifts_and_additions_equal_the_convolution(bits: int) -> None:
    recipe = RECIPES["power-of-two"](bits, None)
    assert recipe.weights is not None
    convolution, layer = trained(recipe.weights)
    assert layer.weight is not None
    coded = layer.weight.coded(layer.matrix)
    weight = coded.decode()
    assert torch.equal(layer.geometry.from_matrix(weight), convolution.weight.detach())
    assert coded.codebook.tensors()["exponent"].numel() == 1
    assert bool((weight[weight != 0].abs().frexp().mantissa == 0.5).all())
    images = torch.randint(-128, 128, (2, 3, 6, 6))
    exponents = torch.where(weight == 0, 0, weight.abs().frexp().exponent - 1)
    lowest = int(exponents[weight != 0].min())
    exponents = torch.where(weight == 0, 0, exponents - lowest)
    patches = nn.functional.unfold(images.double(), 3).long()  # (2, 27, 16)
    total = torch.zeros(2, 5, 16, dtype=torch.long)
    for row in range(5):
        for column in range(27):
            shifted = patches[:, column] << int(exponents[row, column])  # whole numbers in units of 2^lowest
            total[:, row] += shifted * int(weight[row, column].sign())
    with torch.no_grad():
        expected = nn.functional.conv2d(images.double(), convolution.weight.double())
        single = convolution(images.float())
    assert torch.equal(total.double().reshape(2, 5, 4, 4) * 2.0**lowest, expected)
    assert torch.equal(single.double(), expected)  # the sums fit a float32


def rounded(way: WeightTraining, weight: Tensor) -> Tensor:
    running, start = way.start(WeightStart(weight))
    with torch.no_grad():
        return running(start)


@pytest.mark.parametrize("bits", [2, 3, 5])
def test_odd_idempotent_and_equivariant(bits: int) -> None:
    way, weight = StraightThrough(PowerOfTwo(bits, -1, power_of_two_scale=True)), torch.randn(6, 30)
    once = rounded(way, weight)
    assert torch.equal(rounded(way, once), once)
    assert torch.equal(rounded(way, -weight), -once) and torch.equal(rounded(way, 2 * weight), 2 * once)


def test_the_window_stays_and_gradients_pass() -> None:
    recipe = RECIPES["power-of-two"](4, 4)
    assert recipe.weights is not None and recipe.inputs is not None and recipe.inputs.bits == 4
    weight = torch.randn(6, 30)
    running, start = recipe.weights.start(WeightStart(weight))
    before = running.coded(start).codebook.tensors()["exponent"]
    leaf = (8 * start).requires_grad_()
    running(leaf).backward(weight)
    running.after_step(leaf.detach(), 49)
    assert torch.equal(running.coded(leaf).codebook.tensors()["exponent"], before)
    assert torch.equal(leaf.grad, weight)


def test_a_scale_of_fp16_can_be_learned() -> None:
    _, layer = trained(LearnedStep(PowerOfTwo(3)))
    assert layer.weight is not None and bool((layer.weight.get_parameter("growth") != 0).all())
    with torch.no_grad():
        assert torch.equal(layer.weight.coded(layer.matrix).decode(), layer.computed())
    with pytest.raises(ConfigError, match="no scales of fp16"):
        LearnedStep(PowerOfTwo(3, power_of_two_scale=True)).start(WeightStart(torch.randn(3, 4)))
