"""Inputs with a learned step."""

from __future__ import annotations

import pytest
import torch

from corank.errors import ConfigError
from corank.layers import InputQuantizer
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
