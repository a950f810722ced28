"""Where structure fits: real networks, with and without shortcuts of their own."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from bench.models import cifar_resnet20
from torch import Tensor, nn

from corank.errors import ConfigError, ModelError
from corank.layers import RPReLU, Shortcut, Structure, apply_structure, find_structure

BOTH = ("rprelu", "shortcut")


def found(network: nn.Module, inputs: Tensor, kinds: Sequence[str] = BOTH) -> Structure:
    return find_structure(network, lambda one: one(inputs), kinds)


def applied(network: nn.Module, structure: Structure) -> nn.Module:
    changed = copy.deepcopy(network)
    apply_structure(changed, structure)
    return changed


def test_resnet20_gets_every_relu_and_the_second_layer_of_each_block() -> None:
    network, images = cifar_resnet20().eval(), torch.randn(2, 3, 32, 32)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    structure = found(network, images)
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3)]
    relus = {entry["module"]: entry["channels"] for entry in structure if entry["kind"] == "rprelu"}
    assert relus == {"": [16], **{name: [16 * 2 ** (int(name[5]) - 1)] * 2 for name in blocks}}
    # the first layer of a block reads what the block's own shortcut reads: it has one
    shortcuts = [(entry["module"], entry["norm"]) for entry in structure if entry["kind"] == "shortcut"]
    assert shortcuts == [(f"{name}.conv2", f"{name}.bn2") for name in blocks]
    assert list(network.state_dict()) == list(before) and not any(isinstance(one, RPReLU) for one in network.modules())
    changed = applied(network, structure)
    assert sum(isinstance(one, RPReLU) for one in changed.modules()) == 19
    assert sum(isinstance(one, Shortcut) for one in changed.modules()) == 9
    assert "layer1.0.conv2.layer.weight" in changed.state_dict() and "layer1.0.conv1.weight" in changed.state_dict()
    assert changed(images).shape == (2, 10)


def test_a_blocks_output_is_what_the_paper_has() -> None:
    network, inputs = cifar_resnet20().eval(), torch.randn(2, 16, 8, 8)
    block = applied(network, found(network, torch.randn(1, 3, 32, 32))).get_submodule("layer1.0")
    first = nn.Sequential(block.get_submodule("conv1"), block.get_submodule("bn1"))
    inner, wrapped = nn.functional.leaky_relu(first(inputs), 0.25), block.get_submodule("conv2")
    assert isinstance(wrapped, Shortcut)
    outer = wrapped.norm(wrapped.layer(inner)) + inner + inputs
    torch.testing.assert_close(block(inputs), nn.functional.leaky_relu(outer, 0.25))


def test_a_plain_network_gets_one_round_each_inner_layer() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
        nn.Conv2d(8, 16, 3, 2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True),
        nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4),
    ).eval()  # fmt: skip
    structure, images = found(network, torch.randn(2, 3, 10, 10)), torch.randn(2, 3, 10, 10)
    shortcuts = [(entry["module"], entry["norm"]) for entry in structure if entry["kind"] == "shortcut"]
    assert shortcuts == [("3", "4"), ("8", None)]  # not the first, the last, nor one whose outputs are smaller
    assert [entry["module"] for entry in structure if entry["kind"] == "rprelu"] == ["2", "5", "7", "9"]
    assert applied(network, structure)(images).shape == (2, 4)


class Odd(nn.Module):
    """One ReLU used twice, tokens, and a part that calls relu on other shapes each time."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.relu, self.part = nn.Linear(6, 6), nn.Linear(6, 6), nn.ReLU(), Part()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.second(self.relu(self.first(x))))
        x = self.part(x.flatten(1)).reshape(x.shape)
        return torch.relu(self.part(x)[:, 0])


class Part(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x)


def test_calls_whose_channels_are_not_known_stay() -> None:
    network, tokens = Odd().eval(), torch.randn(2, 4, 6)
    structure = found(network, tokens, ["rprelu"])
    assert {entry["module"]: entry["channels"] for entry in structure} == {"": [0, 0, 6], "part": [0]}
    changed = applied(network, structure)
    x = changed.get_submodule("rprelu").get_submodule("2")
    assert isinstance(x, RPReLU)
    with torch.no_grad():
        x.slope.zero_()
    assert torch.equal(changed(tokens), network(tokens))


def test_a_network_without_relus_gets_none() -> None:
    assert found(nn.Sequential(nn.Linear(3, 3), nn.GELU(), nn.Linear(3, 2)), torch.randn(2, 3), ["rprelu"]) == ()


def test_what_cannot_be_found() -> None:
    with pytest.raises(ConfigError, match="structure='prelu': of products, query-key, rprelu, shortcut"):
        found(Odd(), torch.randn(2, 4, 6), ["prelu"])

    class Now(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x) if len(x) == 2 else torch.relu(torch.relu(x))

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = Now()

        def forward(self, x: Tensor) -> Tensor:
            return self.part(self.part(x)[:1])

    with pytest.raises(ModelError, match="'part' does not call relu as often each time"):
        found(Twice(), torch.randn(2, 3), ["rprelu"])
