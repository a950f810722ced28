"""Which channels go together: every kind of coupling is found, and what cannot go is told."""

from __future__ import annotations

import pytest
import torch
from pruning.networks import NETWORKS, images, network
from torch import Tensor, nn

from corank.errors import ConfigError, ModelError
from corank.pruning.graph import find_couplings

torch_pruning = pytest.importorskip("torch_pruning")


def sides(name: str, layer: str) -> set[tuple[str, str]]:
    found = find_couplings(network(name), lambda one: one(images(name)))
    one = next(one for one in found.found if one.name == layer)
    return {(side.module, side.side) for side in one.sides}


def test_a_residual_path_goes_as_one() -> None:
    assert sides("residual", "stem") == {
        ("stem", "out"), ("norm", "out"), ("inner", "in"), ("outer", "out"), ("depthwise", "out"), ("grouped", "in")
    }  # fmt: skip


def test_grouped_channels_go_from_all_groups() -> None:
    model = network("residual")
    found = {one.name: one for one in find_couplings(model, lambda one: one(images("residual"))).found}
    assert found["stem"].units == 4  # 8 channels in 2 groups
    assert found["grouped"].units == 6
    for side in found["stem"].sides:
        assert side.unit[side.index.argsort()].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


def test_concatenated_channels_are_apart() -> None:
    found = {one.name: one for one in find_couplings(network("joined"), lambda one: one(images("joined"))).found}
    reads = {name: next(one for one in found[name].reads()) for name in ("left", "right")}
    assert reads["left"].index.tolist() == [0, 1, 2, 3]
    assert reads["right"].index.tolist() == [4, 5, 6, 7, 8, 9]
    assert found["both"].units == 4  # 8 channels of a norm of 2 groups
    flat = next(one for one in found["both"].reads())
    assert flat.module == "head" and len(flat.index) == 8 * 16


def test_padded_channels_are_shifted() -> None:
    found = {one.name: one for one in find_couplings(network("padded"), lambda one: one(images("padded"))).found}
    outer = next(one for one in found["stem"].sides if one.module == "outer")
    assert dict(zip(outer.unit.tolist(), outer.index.tolist(), strict=True)) == {0: 2, 1: 3, 2: 4, 3: 5}


def test_heads_are_units() -> None:
    found = {one.name: one for one in find_couplings(network("vit"), lambda one: one(images("vit"))).found}
    attention = found["blocks.0.attn.qkv"]
    assert (attention.units, attention.heads) == (4, "blocks.0.attn")
    fused = next(one for one in attention.sides if one.module == "blocks.0.attn.qkv")
    assert len(fused.index) == 96
    assert sorted(fused.index[fused.unit == 1].tolist()) == [*range(8, 16), *range(40, 48), *range(72, 80)]


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_left_in_silence(name: str) -> None:
    model = network(name)
    found = find_couplings(model, lambda one: one(images(name)))
    layers = {name for name, one in model.named_modules() if isinstance(one, (nn.Conv2d, nn.Linear))}
    given = {side.module for one in found.found for side in one.gives()}
    assert layers == (layers & given) | set(found.left)
    assert [why for why in found.left.values()] == ["it gives the network's outputs"]


def test_layers_that_cannot_be_followed_are_named() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.unused = nn.Linear(4, 6), nn.Linear(4, 4)
            self.recurrent, self.last = nn.LSTM(6, 6, batch_first=True), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.recurrent(torch.relu(self.first(x))[:, None])[0][:, 0])

    found = find_couplings(Odd(), lambda one: one(torch.randn(2, 4)))
    assert not found.found
    assert "'recurrent'" in found.left["first"] and found.left["unused"] == "the samples do not use it"


def test_shared_weights_stay() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.inner, self.outer = nn.Embedding(9, 6), nn.Linear(6, 8), nn.Linear(8, 6)
            self.head = nn.Linear(6, 9, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids: Tensor) -> Tensor:
            x = self.table(ids)
            return self.head(x + self.outer(torch.relu(self.inner(x))))

    found = find_couplings(Tied(), lambda one: one(torch.arange(8).reshape(2, 4)))
    assert [one.name for one in found.found] == ["inner"]
    assert "shares" in found.left["outer"]


def test_a_graph_that_breaks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_given: object, **_more: object) -> None:
        raise ZeroDivisionError("integer division or modulo by zero")  # as torchvision's ShuffleNet does

    monkeypatch.setattr(torch_pruning.DependencyGraph, "build_dependency", breaks)
    with pytest.raises(ModelError, match=r"cannot follow this Residual .* \(ZeroDivisionError: integer"):
        find_couplings(network("residual"), lambda one: one(images("residual")))


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"corank\[prune\]"):
        find_couplings(network("residual"), lambda one: one(images("residual")))
