"""Rounded inputs: values and gradients against loops, and the range that loses least."""

from __future__ import annotations

import pytest
import torch
from reference import activation as reference
from torch import Tensor

from corank.layers import InputQuantizer, fit_inputs

CASES = [(8, 0.013, 0), (4, 0.21, 0), (4, 0.3, 7), (6, 0.05, 63), (2, 1.0, 1), (3, 2.0**-24, 2)]


def quantizer(bits: int, step: float, offset: int, trains: bool = False) -> InputQuantizer:
    return InputQuantizer(bits, torch.tensor(step, requires_grad=trains), offset)


def inputs_for(bits: int, step: float, offset: int) -> Tensor:
    """Well inside, outside, and at the values themselves."""
    top = 2**bits
    return torch.cat([(torch.rand(300) * 2 - 1) * top * step * 1.3, step * (torch.arange(float(top)) - offset)])


@pytest.mark.parametrize(("bits", "step", "offset"), CASES)
def test_values_are_the_closest(bits: int, step: float, offset: int) -> None:
    inputs = inputs_for(bits, step, offset)
    given = quantizer(bits, step, offset)(inputs)
    exact = float(torch.tensor(step))
    expected = torch.tensor([reference.rounded(number, bits, exact, offset) for number in inputs.tolist()])
    torch.testing.assert_close(given, expected, rtol=1e-6, atol=0)
    assert 1 < len(given.unique()) <= 2**bits
    assert torch.equal(quantizer(bits, step, offset)(given), given)
    assert torch.equal(quantizer(bits, step, offset)(torch.zeros(3)), torch.zeros(3))


@pytest.mark.parametrize(("bits", "step", "offset"), CASES)
def test_gradients_are_those_of_learned_step_size_quantization(bits: int, step: float, offset: int) -> None:
    inputs = inputs_for(bits, step, offset)[:300].requires_grad_(True)
    rounds, weights = quantizer(bits, step, offset, trains=True), torch.randn(300)
    (rounds(inputs) * weights).sum().backward()
    pairs = [reference.gradients(number, bits, float(torch.tensor(step)), offset) for number in inputs.tolist()]
    straight, moved = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    assert inputs.grad is not None and rounds.step.grad is not None
    assert torch.equal(inputs.grad, weights * straight.float())
    assert 0 < int(straight.sum()) < 300
    assert float(rounds.step.grad) == pytest.approx(float((moved * weights).sum()), rel=1e-4, abs=1e-3)


def test_values_with_and_without_gradients_are_the_same() -> None:
    inputs = torch.randn(1000)
    for trains in (False, True):
        rounds = quantizer(4, 0.2, 5, trains)
        with torch.no_grad():
            plain = rounds(inputs)
        assert torch.equal(rounds(inputs.clone().requires_grad_(True)), plain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_stay(dtype: torch.dtype) -> None:
    given = quantizer(4, 0.25, 3)(torch.randn(50).to(dtype))
    assert given.dtype == dtype and len(given.unique()) <= 16


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
def test_inputs_that_are_never_negative_get_every_value_above_zero(bits: int) -> None:
    values = torch.rand(20_000)
    found = fit_inputs(values, float(values.min()), float(values.max()), bits)
    assert found.offset == 0 and not found.signed
    rounded = found(values)
    assert float(rounded.min()) == 0 and len(rounded.unique()) == 2**bits
    assert float(rounded.max()) == pytest.approx(1, abs=1 / (2**bits - 1))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("kind", ["normal", "positive", "gelu", "constant", "zero", "huge"])
def test_no_range_of_a_fine_search_is_much_better(bits: int, kind: str) -> None:
    draws = torch.randn(8000)
    values = {
        "normal": draws,
        "positive": draws.relu(),
        "gelu": torch.nn.functional.gelu(draws * 2),
        "constant": torch.full((100,), -3.0),
        "zero": torch.zeros(100),
        "huge": draws * 1e5,
    }[kind]
    low, high = float(values.min()), float(values.max())
    found = fit_inputs(values, low, high, bits)
    assert torch.equal(found.step, found.step.half().float()) and float(found.step) > 0
    assert 0 <= found.offset < 2**bits and (low < 0 or not found.signed)
    given = float((found(values) - values).square().mean())
    best = float("inf")
    for step in torch.linspace(0.02, 1.0, 60) * (max(high, 0) - min(low, 0)) / (2**bits - 1):
        step = step.half().float()
        if 0 < float(step) < 65504:
            for offset in range(0, 2**bits, max(1, 2**bits // 16)) if low < 0 else (0,):
                tried = InputQuantizer(bits, step, offset)
                best = min(best, float((tried(values) - values).square().mean()))
    assert given <= 1.12 * best + 1e-9


def test_eight_bits_are_never_worse_than_the_whole_range() -> None:
    values = torch.randn(5000).exp()
    found = fit_inputs(values, float(values.min()), float(values.max()), 8)
    whole = InputQuantizer(8, values.max() / 255, 0)
    assert (found(values) - values).square().sum() <= (whole(values) - values).square().sum() * 1.001
