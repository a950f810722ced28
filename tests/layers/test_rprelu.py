"""RPReLU by its equation, and in the place of relu however a network calls it."""

from __future__ import annotations

import copy
import pickle
from inspect import signature
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.errors import ModelError
from corank.layers.rprelu import RPReLU, replace_relus

LIKE = torch.zeros(1)


def drawn(channels: int, dtype: torch.dtype = torch.float32) -> RPReLU:
    one = RPReLU(channels, LIKE.to(dtype))
    for parameter in one.parameters():
        parameter.data = torch.randn(channels).half().to(dtype)
    return one


class Calls(nn.Module):
    """Every way to call relu, its own and a module's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True)

    def forward(self, x: Tensor, times: int = 5) -> Tensor:
        calls: list[Any] = [torch.relu, F.relu, Tensor.relu, self.act, lambda z: F.relu(input=z)]
        x = self.conv(x)
        for call in calls[:times]:
            x = call(x) - 0.3
        return x


@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 7), (2, 3, 4, 5), (2, 3, 2, 3, 2)])
def test_values_and_gradients_are_the_equation(shape: tuple[int, ...]) -> None:
    one, inputs = drawn(3), torch.randn(shape).double().float().requires_grad_(True)
    given = torch.randn(shape)
    (one(inputs) * given).sum().backward()
    shift, slope, lift = (p.detach().reshape(-1, *(1,) * (len(shape) - 2)) for p in (one.shift, one.slope, one.lift))
    away = inputs.detach() - shift
    torch.testing.assert_close(one(inputs), torch.where(away > 0, away, slope * away) + lift)
    through = given * torch.where(away > 0, 1.0, slope.expand(shape))
    axes = [axis for axis in range(len(shape)) if axis != 1]
    torch.testing.assert_close(inputs.grad, through)
    torch.testing.assert_close(one.shift.grad, -through.sum(axes), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.lift.grad, given.sum(axes), rtol=1e-4, atol=1e-5)
    expected = (given * torch.where(away > 0, torch.zeros(()), away)).sum(axes)
    torch.testing.assert_close(one.slope.grad, expected, rtol=1e-4, atol=1e-5)


def test_it_starts_as_the_paper_has_it() -> None:
    one, inputs = RPReLU(3, LIKE), torch.randn(4, 3)
    assert torch.equal(one(inputs), torch.where(inputs > 0, inputs, 0.25 * inputs))


def test_it_computes_with_what_a_file_holds() -> None:
    one, inputs = RPReLU(3, LIKE), torch.randn(4, 3)
    for parameter in one.parameters():
        parameter.data = torch.randn(3) * 1e-3
    given = one(inputs)
    with torch.no_grad():
        assert torch.equal(one(inputs), given)
    one.settle()
    assert all(torch.equal(parameter, parameter.half().float()) for parameter in one.parameters())
    assert torch.equal(one(inputs), given)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_stay(dtype: torch.dtype) -> None:
    assert drawn(3, dtype)(torch.randn(2, 3, 4, 4).to(dtype)).dtype == dtype


def test_each_call_becomes_one_in_its_turn() -> None:
    network, inputs = Calls(), torch.randn(2, 3, 5, 5)
    names = list(network.state_dict())
    replace_relus(network, [4, 0, 4, 4, 4], LIKE)
    parts = network.get_submodule("rprelu")
    for number in (0, 2, 3, 4):
        for parameter in parts.get_submodule(str(number)).parameters():
            parameter.data.fill_(0.1 * number + 0.05)
    x = network.conv(inputs)
    for number in range(5):
        away = x - (0.1 * number + 0.05)
        lifted = torch.where(away > 0, away, away * (0.1 * number + 0.05)) + 0.1 * number + 0.05
        x = (x.clamp(min=0) if number == 1 else lifted) - 0.3
    torch.testing.assert_close(network(inputs), x, rtol=1e-3, atol=1e-3)
    assert [name for name in network.state_dict() if "rprelu" not in name] == names
    for again in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(again(inputs), network(inputs))
        assert again.__dict__["forward"]._module is again


def test_modules_inside_one_another_count_their_own() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Calls()

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.inner(torch.relu(x)))

    network, inputs = Outer(), torch.randn(2, 3, 5, 5)
    expected = network(inputs)
    replace_relus(network.inner, [0] * 5, LIKE)
    replace_relus(network, [0, 0], LIKE)
    assert torch.equal(network(inputs), expected)


@pytest.mark.parametrize("times", [3, 0])
def test_other_calls_than_were_replaced_are_an_error(times: int) -> None:
    network = Calls()
    replace_relus(network, [4] * 4, LIKE)
    with pytest.raises(ModelError, match=rf"calls relu {times} times where 4 calls were replaced"):
        network(torch.randn(1, 3, 2, 2), times)
    with pytest.raises(ModelError, match="more often than the 4 times"):
        network(torch.randn(1, 3, 2, 2))


def test_modules_that_cannot_be_changed() -> None:
    with pytest.raises(ModelError, match="runs all that it holds"):
        replace_relus(nn.Sequential(nn.ReLU()), [3], LIKE)
    network = Calls()
    replace_relus(network, [4], LIKE)
    with pytest.raises(ModelError, match="cannot be changed"):
        replace_relus(network, [4], LIKE)


def test_a_changed_network_is_exported() -> None:
    network, inputs = Calls().eval(), torch.randn(2, 3, 5, 5)
    replace_relus(network, [4, 4, 0, 4, 4], LIKE)
    assert list(signature(network.forward).parameters) == ["x", "times"]
    program = torch.export.export(network, (inputs,))
    torch.testing.assert_close(program.module()(inputs), network(inputs))
