"""Layers made narrower: tensors and sizes agree, and sizes that cannot be are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from corank.errors import ConfigError, ModelError
from corank.layers import apply_structure, read_structure, with_widths
from corank.layers.width import resize, sizes_of


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.attn_dim = 4, 16
        self.gamma = nn.Parameter(torch.arange(6.0))

    def forward(self, x: Tensor) -> Tensor:
        return x


CASES: list[tuple[nn.Module, dict[str, Any], tuple[int, ...], tuple[int, ...]]] = [
    (nn.Conv2d(6, 8, 3), {"in_channels": 4, "out_channels": 5}, (2, 4, 5, 5), (2, 5, 3, 3)),
    (nn.Conv2d(8, 8, 3, groups=4), {"in_channels": 4, "out_channels": 4}, (2, 4, 5, 5), (2, 4, 3, 3)),
    (nn.Conv2d(8, 8, 3, groups=8), {"in_channels": 3, "out_channels": 3, "groups": 3}, (2, 3, 5, 5), (2, 3, 3, 3)),
    (nn.ConvTranspose2d(6, 8, 2, stride=2), {"in_channels": 4, "out_channels": 5}, (2, 4, 3, 3), (2, 5, 6, 6)),
    (nn.Linear(6, 8), {"in_features": 4, "out_features": 5}, (2, 4), (2, 5)),
    (nn.BatchNorm2d(6), {"num_features": 4}, (2, 4, 3, 3), (2, 4, 3, 3)),
    (nn.BatchNorm2d(6, affine=False), {"num_features": 4}, (2, 4, 3, 3), (2, 4, 3, 3)),
    (nn.InstanceNorm2d(6, affine=True), {"num_features": 4}, (2, 4, 3, 3), (2, 4, 3, 3)),
    (nn.GroupNorm(2, 6), {"num_channels": 4}, (2, 4, 3, 3), (2, 4, 3, 3)),
    (nn.LayerNorm(6), {"normalized_shape": [4]}, (2, 4), (2, 4)),
    (nn.RMSNorm(6), {"normalized_shape": (4,)}, (2, 4), (2, 4)),
    (nn.PReLU(6), {"num_parameters": 4}, (2, 4, 3), (2, 4, 3)),
]


@pytest.mark.parametrize(("module", "sizes", "given", "made"), CASES, ids=lambda one: type(one).__name__)
def test_a_narrower_layer_runs(
    module: nn.Module, sizes: dict[str, Any], given: tuple[int, ...], made: tuple[int, ...]
) -> None:
    resize(module.eval(), sizes)
    assert module(torch.randn(given)).shape == made
    assert {name: sizes_of(module)[name] for name in sizes} == {
        name: size if isinstance(size, int) else tuple(size) for name, size in sizes.items()
    }
    before = {name: value.clone() for name, value in module.state_dict().items()}
    resize(module, sizes)  # what it has already stays
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_first_rows_and_columns_stay() -> None:
    layer = nn.Linear(4, 3)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    resize(layer, {"in_features": 2, "out_features": 2})
    assert torch.equal(layer.weight, weight[:2, :2]) and torch.equal(layer.bias, bias[:2])


def test_heads_and_parameters_of_its_own() -> None:
    attention = Attention()
    resize(attention, {"num_heads": 3, "attn_dim": 12, "gamma": [4]})
    assert (attention.num_heads, attention.attn_dim) == (3, 12)
    assert attention.gamma.tolist() == [0, 1, 2, 3]


def test_on_the_meta_device() -> None:
    layer = nn.Linear(4, 3, device="meta")
    resize(layer, {"out_features": 2})
    assert layer.weight.is_meta and layer.weight.shape == (2, 4)


@pytest.mark.parametrize(
    ("module", "sizes"),
    [
        (nn.Linear(4, 3), {"out_features": 4}),
        (nn.Linear(4, 3), {"out_features": 0}),
        (nn.Linear(4, 3), {"out_features": [2]}),
        (nn.Linear(4, 3), {"weight": [2, 2]}),
        (nn.LayerNorm(4), {"normalized_shape": 2}),
        (nn.LayerNorm(4), {"normalized_shape": [2, 2]}),
        (nn.Conv2d(8, 8, 3, groups=4), {"groups": 2}),
        (nn.Conv2d(8, 8, 3, groups=4), {"in_channels": 6}),
        (nn.Conv2d(8, 8, 3, groups=8), {"groups": 4}),
        (nn.GroupNorm(2, 6), {"num_channels": 5}),
        (nn.GroupNorm(2, 6), {"num_groups": 1}),
        (Attention(), {"attn_dim": 13}),
        (Attention(), {"training": 1}),
        (nn.ReLU(), {"weight": [1]}),
        (nn.MultiheadAttention(8, 2), {"embed_dim": 4}),
    ],
    ids=str,
)
def test_sizes_that_cannot_be(module: nn.Module, sizes: dict[str, Any]) -> None:
    before = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    with pytest.raises(ModelError):
        resize(module, sizes)
    assert before == {name: tuple(value.shape) for name, value in module.state_dict().items()}


def test_a_structure_of_widths() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    structure = with_widths((), {"0": {"out_features": 3}, "2": {"in_features": 3}})
    apply_structure(net, structure)
    assert net(torch.randn(5, 4)).shape == (5, 2)
    merged = with_widths(structure, {"0": {"out_features": 2}, "2": {"in_features": 2}})
    apply_structure(net, merged)
    assert [one["sizes"] for one in merged] == [{"out_features": 2}, {"in_features": 2}]


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        [],
        {"out_features": 0},
        {"out_features": True},
        {"out_features": 1.5},
        {"out_features": [[2]]},
        {"a": "b"},
        None,
    ],
    ids=str,
)
def test_lists_that_lie(sizes: Any) -> None:
    with pytest.raises(ConfigError, match="structure"):
        read_structure([{"kind": "width", "module": "0", "sizes": sizes}])


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(ModelError, match="no module 'x'"):
        apply_structure(nn.Sequential(nn.Linear(2, 2)), [{"kind": "width", "module": "x", "sizes": {"a": 1}}])
