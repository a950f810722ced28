"""Inputs with a learned step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from corank.errors import ConfigError
from corank.layers import InputQuantizer
from corank.matrix import Geometry
from corank.training.described import described
from corank.training.inputs import InputStart, LearnedStepInputs


def start(offset: int = 4) -> InputStart:
    return InputStart(InputQuantizer(4, torch.tensor(0.25), offset), 1.0)


def test_it_starts_as_the_quantizer_given_and_ships_what_it_computes() -> None:
    inputs = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    way = LearnedStepInputs(4).start(start())
    assert torch.equal(way(inputs), start().quantizer(inputs))
    with torch.no_grad():
        next(way.parameters()).fill_(0.3)
    shipped = way.quantizer()
    assert torch.equal(way(inputs), shipped(inputs))
    assert float(shipped.step) > 0.25 and not shipped.step.requires_grad


def test_its_gradient_is_that_of_lsq() -> None:
    inputs = torch.tensor([0.3, -0.9, 4.0, -3.0], requires_grad=True)
    way = LearnedStepInputs(4).start(start())
    way(inputs).sum().backward()
    scaled = inputs.detach() / 0.25
    whole = scaled.round().clamp(-4, 11)
    inside = (scaled >= -4) & (scaled <= 11)
    growth = next(way.parameters())
    assert inputs.grad is not None and growth.grad is not None
    assert torch.equal(inputs.grad, inside.float())
    torch.testing.assert_close(growth.grad, 0.25 * (whole - scaled * inside).sum())


@pytest.mark.parametrize("bits", [1, 9, 4.0])
def test_bits(bits: object) -> None:
    with pytest.raises(ConfigError, match="bits="):
        LearnedStepInputs(bits)  # pyright: ignore[reportArgumentType]


LAYERS = {"linear": (nn.Linear(5, 3), (4, 7, 5)), "conv": (nn.Conv2d(6, 4, 3, groups=2), (2, 6, 5, 5))}


@pytest.mark.parametrize("name", LAYERS)
def test_each_channel_has_a_shift_which_starts_at_zero(name: str) -> None:
    layer, shape = LAYERS[name]
    given = InputStart(start().codes, 1.0, Geometry.of(layer))
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    way = LearnedStepInputs(4, shift=True).start(given)
    assert torch.equal(way(inputs), given.codes(inputs))
    moved = way.get_parameter("moved")
    assert moved.numel() == shape[-1 if name == "linear" else 1]
    with torch.no_grad():
        moved.copy_(torch.randn(moved.shape))
    shipped = way.quantizer()
    assert isinstance(shipped, InputQuantizer) and shipped.shift is not None
    assert torch.equal(shipped.shift, shipped.shift.half().float()) and not shipped.shift.requires_grad
    assert torch.equal(way(inputs), shipped(inputs))
    expected = ((inputs - shipped.shift) / 0.25).round().clamp(-4, 11) * 0.25
    assert torch.equal(shipped(inputs), expected)


def test_a_shifts_gradient_is_minus_that_of_its_inputs() -> None:
    inputs = torch.randn(60, 5, requires_grad=True)
    way = LearnedStepInputs(4, shift=True).start(InputStart(start().codes, 1.0, Geometry.of(nn.Linear(5, 3))))
    given = torch.randn(60, 5)
    (way(inputs) * given).sum().backward()
    assert inputs.grad is not None
    assert torch.equal(inputs.grad, torch.where((inputs >= -1) & (inputs <= 2.75), given, 0.0))
    torch.testing.assert_close(way.get_parameter("moved").grad, -0.25 * inputs.grad.sum(0), rtol=1e-4, atol=1e-5)


def test_without_shifts_a_recipe_is_written_as_before() -> None:
    assert described(LearnedStepInputs(4)) == {"kind": "learned-step"}
    assert described(LearnedStepInputs(4, shift=True)) == {"kind": "learned-step", "shift": True}
