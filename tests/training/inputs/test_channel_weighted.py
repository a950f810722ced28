"""Inputs rounded for most channels' sake."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from corank.errors import ConfigError
from corank.layers import InputQuantizer
from corank.layers.activation import fit_inputs
from corank.matrix import Geometry
from corank.training.described import described, read
from corank.training.inputs import ChannelWeightedInputs, InputStart, InputTraining
from corank.training.inputs.channel_weighted import channel_errors, importance


def fitted(inputs: Tensor, bits: int = 3) -> InputQuantizer:
    return fit_inputs(inputs.flatten(), float(inputs.min()), float(inputs.max()), bits)


def one_loud_channel() -> Tensor:
    inputs = torch.relu(torch.randn(32, 8, 6, 6))
    inputs[:, 3] *= 20
    return inputs


def test_with_equal_weights_it_is_the_plain_squared_error() -> None:
    channels = torch.randn(5, 64)
    quantizer = fitted(channels)
    weighted = torch.ones(5) @ channel_errors(channels, quantizer)
    assert torch.allclose(weighted / 5, (quantizer(channels) - channels).square().mean())
    even = torch.randn(4, 200)
    even = (even - even.mean(1, keepdim=True)) / even.std(1, correction=0, keepdim=True)
    assert torch.allclose(importance(even), torch.ones(4), rtol=1e-5)


def test_weights_go_with_one_over_the_variance() -> None:
    channels = torch.randn(3, 1000) * torch.tensor([[1.0], [2.0], [5.0]])
    found, variance = importance(channels), channels.var(1, correction=0)
    assert torch.allclose(found * variance, (found * variance)[0].expand(3), rtol=1e-5)
    assert torch.allclose(found.mean(), torch.tensor(1.0))


def test_channels_that_never_vary_count_nothing_and_quiet_ones_not_without_end() -> None:
    channels = torch.randn(4, 100)
    channels[0] = 0
    channels[1] *= 1e-6
    found = importance(channels)
    assert found[0] == 0 and bool(torch.isfinite(found).all()) and found[1] < 2000 * found[2]
    assert torch.equal(importance(torch.zeros(3, 5)), torch.zeros(3))


def test_most_channels_gain_where_one_is_loud() -> None:
    inputs = one_loud_channel()
    channels = inputs.movedim(1, 0).flatten(1)
    medians = {}
    for weighted in (False, True):
        running = ChannelWeightedInputs(3, weighted=weighted).start(InputStart(fitted(inputs), 1.0))
        for _ in range(200):
            running(inputs)
        medians[weighted] = float(channel_errors(channels, running.quantizer()).median())
    assert medians[True] < 0.3 * medians[False]


def test_unweighted_it_finds_a_step_of_least_error() -> None:
    inputs = one_loud_channel()
    best = fitted(inputs)
    running = ChannelWeightedInputs(3, every=1, weighted=False).start(
        InputStart(InputQuantizer(3, best.step * 2.5, best.offset), 1.0)
    )
    for _ in range(60):
        running(inputs)
    lost = [float((one(inputs) - inputs).square().mean()) for one in (running.quantizer(), best)]
    assert lost[0] < 1.05 * lost[1]


def test_gradients_pass_inside_of_the_range_alone() -> None:
    quantizer = InputQuantizer(2, torch.tensor(1.0), 0)
    running = ChannelWeightedInputs(2, every=0).start(InputStart(quantizer, 1.0))
    inputs = torch.tensor([-0.5, 0.2, 2.9, 3.5]).requires_grad_()
    running(inputs).sum().backward()
    assert inputs.grad is not None and inputs.grad.tolist() == [0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("layer", "shape", "channel"),
    [
        (None, (16, 4, 5, 5), 1),
        (None, (16, 9, 4), -1),
        (nn.Conv1d(4, 2, 3), (16, 4, 9), 1),
        (nn.Linear(4, 2), (16, 9, 4), -1),
    ],
)
def test_which_axis_has_the_channels(layer: nn.Module | None, shape: tuple[int, ...], channel: int) -> None:
    geometry = None if layer is None else Geometry.of(layer)
    inputs = torch.randn(shape)
    inputs.movedim(channel, 0)[0].mul_(20)
    steps = []
    for weighted in (False, True):
        how = ChannelWeightedInputs(3, weighted=weighted)
        running = how.start(InputStart(fitted(inputs), 1.0, geometry))
        for _ in range(100):
            running(inputs)
        steps.append(float(running.quantizer().step))
    assert steps[1] < 0.7 * steps[0]


def test_what_ships_is_what_was_computed_and_evaluating_changes_nothing() -> None:
    inputs = one_loud_channel()
    running = ChannelWeightedInputs(4).start(InputStart(fitted(inputs, 4), 1.0))
    running(inputs)
    kept = {name: tensor.clone() for name, tensor in running.state_dict().items()}
    with torch.no_grad():
        computed = running(inputs)
    assert torch.equal(running.quantizer()(inputs), computed)
    assert all(torch.equal(tensor, running.state_dict()[name]) for name, tensor in kept.items())
    other = ChannelWeightedInputs(4).start(InputStart(fitted(inputs, 4), 1.0))
    other.load_state_dict(running.state_dict())
    for _ in range(45):
        assert torch.equal(running(inputs), other(inputs))


def test_settings() -> None:
    how = ChannelWeightedInputs(3, 5, False)
    assert read(described(how), InputTraining) == how and how.with_bits(2).bits == 2
    bad: list[dict[str, Any]] = [{"bits": 1}, {"bits": 9}, {"every": -1}, {"every": 2.0}]
    for fields in bad:
        with pytest.raises(ConfigError):
            ChannelWeightedInputs(**fields)
