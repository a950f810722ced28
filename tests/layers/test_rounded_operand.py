"""What is multiplied in attention, rounded: values, gradients, the fit, and that what settles is what trained."""

from __future__ import annotations

import copy

import pytest
import torch

from corank.layers import InputQuantizer, RoundedOperand

LIKE = torch.zeros(1)


@pytest.mark.parametrize("bits", range(2, 9))
def test_signed_and_unsigned_levels(bits: int) -> None:
    wide = torch.linspace(-1000, 1000, 100_001)[:, None]
    for channels, low in ((1, -(2 ** (bits - 1))), (0, 0)):
        values = RoundedOperand(bits, channels, LIKE)(wide).unique()
        assert values.tolist() == [float(low + code) for code in range(2**bits)]


def test_gradients_are_those_of_lsq_with_offsets() -> None:
    operand = RoundedOperand(3, 2, LIKE)
    operand.fit(torch.randn(500))
    step = float(operand.get_buffer("step"))
    with torch.no_grad():
        operand.get_parameter("shift").copy_(torch.tensor([0.25, -0.5]))
    inputs = torch.randn(50, 2, requires_grad=True)
    given = torch.randn(50, 2)
    (operand(inputs) * given).sum().backward()
    scaled = (inputs.detach() - torch.tensor([0.25, -0.5])) / step
    inside = (scaled >= -4) & (scaled <= 3)
    torch.testing.assert_close(inputs.grad, given * inside)
    torch.testing.assert_close(operand.get_parameter("shift").grad, -(given * inside).sum(0))
    error = scaled.round().clamp(-4, 3) - scaled * inside
    torch.testing.assert_close(operand.get_parameter("growth").grad, step * (given * error).sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [0, 4])
def test_the_fit_is_the_best_of_many_steps(channels: int) -> None:
    values = torch.randn(4000) if channels else torch.rand(4000) ** 4
    operand = RoundedOperand(3, channels, LIKE)
    operand.fit(values)
    step = operand.get_buffer("step")
    assert float(step) == float(step.half())

    def error(one: float) -> float:
        return float((InputQuantizer(3, torch.tensor(one), operand.offset)(values) - values).square().sum())

    best = min(error(float(step) * factor) for factor in torch.linspace(0.2, 5, 400).tolist())
    assert error(float(step)) <= 1.05 * best
    operand.fit(torch.zeros(7))
    assert float(operand.get_buffer("step")) > 0


def test_what_settles_is_what_trained() -> None:
    operand, inputs = RoundedOperand(4, 6, LIKE), torch.randn(9, 6)
    assert not operand._parameters["growth"] and operand.active
    operand.fit(inputs)
    optimizer = torch.optim.Adam(operand.parameters(), 0.05)
    for _ in range(20):
        optimizer.zero_grad()
        (operand(inputs) - inputs).square().sum().backward()
        optimizer.step()
    trained = operand(inputs).detach()
    assert not torch.equal(trained, InputQuantizer(4, operand.get_buffer("step"), 8)(inputs))
    operand.settle()
    assert torch.equal(operand(inputs), trained)
    assert [name for name, _ in operand.named_parameters()] == ["shift"]
    for number in operand.state_dict().values():
        assert torch.equal(number, number.half().float())
    again = copy.deepcopy(operand)
    assert torch.equal(again(inputs), trained)
    again.active = False
    assert again(inputs) is inputs
