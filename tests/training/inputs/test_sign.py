"""Inputs of one bit that train: start, gradients, and that what ships is what trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from corank.errors import ConfigError
from corank.layers import BinaryInputs, InputQuantizer, fit_inputs
from corank.matrix import Geometry
from corank.training.described import described, read
from corank.training.inputs import InputStart, InputTraining, LearnedStepInputs, SignInputs

SIGNED, POSITIVE = InputQuantizer(4, torch.tensor(0.2), 8), InputQuantizer(4, torch.tensor(0.2), 0)
LAYERS = {"linear": (nn.Linear(5, 3), (4, 7, 5)), "conv": (nn.Conv2d(6, 4, 3, groups=2), (2, 6, 5, 5)),
          "transposed": (nn.ConvTranspose1d(6, 4, 3), (2, 6, 5))}  # fmt: skip


def start(name: str = "conv", how: SignInputs | None = None, quantizer: InputQuantizer = SIGNED, size: float = 0.8):
    layer = LAYERS[name][0]
    return (how or SignInputs()).start(InputStart(quantizer, size, Geometry.of(layer)))


@pytest.mark.parametrize("name", LAYERS)
def test_each_channel_has_a_shift(name: str) -> None:
    running, inputs = start(name), torch.randn(LAYERS[name][1], requires_grad=True)
    running(inputs).square().mul(torch.randn(LAYERS[name][1])).sum().backward()
    channels = Geometry.of(LAYERS[name][0]).channels
    moved = dict(running.named_parameters())["moved"]
    assert moved.numel() == channels == inputs.shape[-1 if name == "linear" else 1]
    # the axis: moving one channel's shift far up turns that channel alone
    with torch.no_grad():
        moved.view(-1)[1] = 1e4
        values = running(inputs)
    turned = values.movedim(-1 if name == "linear" else 1, 0)
    assert bool((turned[1] < 0).all()) and not bool((turned[0] < 0).all())


def test_it_starts_at_the_mean_magnitude() -> None:
    signed = start().quantizer()
    assert isinstance(signed, BinaryInputs) and signed.shift is not None
    assert float(signed.step) == float(torch.tensor(0.8).half()) and not bool(signed.shift.any())
    positive = start(quantizer=POSITIVE).quantizer()
    assert isinstance(positive, BinaryInputs) and positive.shift is not None
    assert torch.equal(positive.shift, torch.full((6, 1, 1), 0.8).half().float())
    values = torch.rand(100)
    fitted = fit_inputs(values, 0.0, 1.0, 1)
    found = SignInputs().start(InputStart(fitted, 0.5)).quantizer()
    assert isinstance(found, BinaryInputs) and found.shift is not None and found.shift.shape == (1,)
    assert torch.equal(found(values), fitted(values))


@pytest.mark.parametrize("gradient", ["polynomial", "clip"])
def test_gradients_reach_step_and_shift(gradient: str) -> None:
    running, inputs = start(how=SignInputs(gradient=gradient)), torch.randn(2, 6, 5, 5, requires_grad=True)
    given = torch.randn(2, 6, 5, 5)
    (running(inputs) * given).sum().backward()
    step = float(torch.tensor(0.8).half())
    away = inputs.detach() / step
    slope = torch.where(away.abs() <= 1, 2 - 2 * away.abs() if gradient == "polynomial" else torch.ones(()), 0.0)
    parameters = dict(running.named_parameters())
    torch.testing.assert_close(inputs.grad, given * slope)
    # shift = step0 * moved and step = step0 * exp(growth), so d/dmoved = step0 d/dshift and d/dgrowth = step d/dstep
    torch.testing.assert_close(
        parameters["moved"].grad, -0.8 * (given * slope).sum((0, 2, 3))[:, None, None], rtol=1e-4, atol=1e-4
    )
    expected = 0.8 * (given * torch.where(away >= 0, 1.0, -1.0)).sum()
    torch.testing.assert_close(parameters["growth"].grad, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("quantizer", [SIGNED, POSITIVE], ids=["signed", "positive"])
def test_what_ships_is_what_trained(shift: bool, quantizer: InputQuantizer) -> None:
    running = start(how=SignInputs(shift=shift), quantizer=quantizer)
    optimizer = torch.optim.Adam(running.parameters(), 0.1)
    for _ in range(10):
        optimizer.zero_grad()
        inputs = torch.randn(3, 6, 5, 5)
        (running(inputs) - inputs).square().mean().backward()
        optimizer.step()
    ships, inputs = running.quantizer(), torch.randn(3, 6, 5, 5)
    assert isinstance(ships, BinaryInputs) and float(ships.step) > 0
    stored = {name: tensor.float() for name, tensor in ships.tensors().items()}
    # fp16 already: the file holds it bit for bit
    assert torch.equal(stored["input_step"], ships.step)
    assert ships.shifts == (6 if shift else int(quantizer is POSITIVE))
    if ships.shift is not None:
        assert torch.equal(stored["input_shift"], ships.shift.reshape(-1))
    assert torch.equal(ships(inputs), running(inputs))
    assert not ships.step.requires_grad


def test_the_step_stays_positive_however_far_it_moves() -> None:
    running = start()
    with torch.no_grad():
        dict(running.named_parameters())["growth"].fill_(-100.0)
    assert float(running.quantizer().step) > 0


def test_settings() -> None:
    assert read(described(SignInputs(gradient="clip")), InputTraining) == SignInputs(gradient="clip")
    for wrong in ({"bits": 2}, {"bits": True}, {"gradient": "straight"}):
        with pytest.raises(ConfigError):
            SignInputs(**wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"LearnedStepInputs\(bits=4\) trains 2 to 8"):
        SignInputs().with_bits(4)
    with pytest.raises(ConfigError, match=r"1 bit are trained by SignInputs\(\)"):
        LearnedStepInputs(4).start(InputStart(BinaryInputs(torch.tensor(1.0)), 1.0))


@pytest.mark.parametrize("quantizer", [SIGNED, POSITIVE])
def test_a_unit_step_stays_one_and_shifts_start_at_zero(quantizer: InputQuantizer) -> None:
    running = start(how=SignInputs(unit=True), quantizer=quantizer)
    assert [name for name, _ in running.named_parameters()] == ["moved"]
    inputs, given = torch.randn(2, 6, 5, 5, requires_grad=True), torch.randn(2, 6, 5, 5)
    found = running(inputs)
    assert torch.equal(found, torch.where(inputs >= 0, 1.0, -1.0))
    (found * given).sum().backward()
    assert inputs.grad is not None
    torch.testing.assert_close(inputs.grad, given * (2 - 2 * inputs.detach().abs()).clamp(min=0))
    shipped = running.quantizer()
    assert isinstance(shipped, BinaryInputs) and float(shipped.step) == 1
    assert read(described(SignInputs(unit=True)), InputTraining) == SignInputs(unit=True)
