"""What one forward pass shows."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn

from corank.layers import names_of, observe

WATCHED = (nn.Conv2d, nn.Linear)


class Net(nn.Module):
    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> object:
        y = self.conv(x)
        z = self.norm(y)
        match self.way:
            case "added":
                return z + y
            case "returned":
                return {"features": y, "z": z}
            case "viewed":
                return z, y.flatten(1)[:, :1] * 2
            case "branch":
                return z if y.mean() > 0 else -z
            case "in place":
                y.add_(1)
                return z
            case _:
                return z


def readers(way: str) -> tuple[Net, dict[int, int]]:
    net = Net(way)
    return net, observe(net, lambda model: model(torch.randn(2, 2, 5, 5)), WATCHED).norms


def test_the_one_reader_is_found() -> None:
    net, found = readers("alone")
    assert found == {id(net.conv): id(net.norm)}


def test_a_second_reader_is_seen() -> None:
    for way in ("added", "returned", "viewed", "branch", "in place"):
        assert readers(way)[1] == {}, way


def test_calls_and_order() -> None:
    shared = nn.Linear(2, 2)
    net = nn.Sequential(nn.Linear(2, 2), shared, nn.ReLU(), shared)
    never = nn.Linear(2, 2)
    net[0].never = never
    seen = observe(net, lambda model: model(torch.randn(1, 2)), WATCHED)
    assert seen.calls[id(shared)] == 2
    assert id(never) not in seen.calls
    order = list(seen.calls)
    assert order.index(id(net[0])) < order.index(id(shared)) < order.index(id(net[2]))


def test_model_is_left_as_it_was() -> None:
    net = Net("alone")
    net.train()
    net.norm.eval()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    seen = observe(net, lambda model: model(torch.randn(2, 2, 5, 5)), WATCHED)
    assert net.training and net.conv.training and not net.norm.training
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in net.modules())
    assert isinstance(seen.outputs, Tensor) and not seen.outputs.requires_grad


def test_hooks_go_when_the_model_fails() -> None:
    net = Net("alone")
    with contextlib.suppress(RuntimeError):
        observe(net, lambda model: model(torch.randn(2, 7)), WATCHED)
    assert net.training
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in net.modules())


def test_names_of_shared_modules() -> None:
    shared = nn.Linear(2, 2)
    net = nn.Sequential(shared, nn.Sequential(shared))
    assert names_of(net)[id(shared)] == ["0", "1.0"]
