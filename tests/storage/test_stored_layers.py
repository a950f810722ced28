"""What the file says of a layer is what the model has, without the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import corank
from corank.codecs import Uniform
from corank.errors import ArtifactError
from corank.layers import CodedLayer
from corank.plan import LayerPlan
from corank.storage.artifact import read
from corank.storage.contents import ArtifactContents, plain_tensors
from corank.storage.stored_layers import layer_code, other_tensors, slot_tensors


class Net(nn.Module):
    """Grouped, dilated, transposed and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 12, 3, groups=2, dilation=2, padding=2)
        self.wide = nn.ConvTranspose2d(12, 6, 2, stride=2, groups=3)
        self.last = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.wide(self.grouped(self.first(x).relu()).relu()).mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    layers = {"grouped": LayerPlan(Uniform(3, group=9), rank=2), "wide": LayerPlan(Uniform(2), rank=1, inputs=6)}
    images = torch.randn(16, 3, 8, 8)
    return corank.quantize(Net().eval(), images, bits=4, preset="nearest", budget=0, layers=layers)


def test_every_layer_is_read_back_bit_for_bit(model: nn.Module, tmp_path: Path) -> None:
    corank.save(model, tmp_path / "file")
    run, contents = read(tmp_path / "file")
    found = slot_tensors(run, contents)
    modules = dict(model.named_modules())
    assert set(found) == {"first", "grouped", "wide", "last"}
    for name, tensors in found.items():
        layer = modules[name]
        assert isinstance(layer, CodedLayer)
        assert list(tensors) == list(layer.slots())
        code = layer_code(run, name, tensors)
        assert torch.equal(code.weight.codes, layer.code().weight.codes)
        assert torch.equal(layer.geometry.from_matrix(code.compose()), layer.weight)
    inputs = layer_code(run, "wide", found["wide"]).inputs
    assert inputs is not None and inputs.bits == 6


def test_the_other_tensors_are_those_of_the_model(model: nn.Module, tmp_path: Path) -> None:
    corank.save(model, tmp_path / "file")
    found, expected = other_tensors(read(tmp_path / "file")[1]), plain_tensors(model)
    assert set(found) == set(expected)
    assert all(torch.equal(tensor.to(expected[name].dtype), expected[name]) for name, tensor in found.items())


@pytest.mark.parametrize(
    "tensors",
    [
        {"float16": [["a", [5]]]},
        {"float16": [["a", [-1]]]},
        {"float16": [["a", [2, -2]]]},
        {"float16": [["a", [1 << 70]]]},
        {"float16": [["a", "text"]]},
        {"float16": [["a", [2.5]]]},
        {"float16": [["a"]]},
        {"float16": 3},
        {"float64": [["a", [1]]]},
        [],
    ],
)
def test_an_unsound_list_of_tensors_is_refused(tensors: object) -> None:
    contents = ArtifactContents({"tensors": tensors}, {"float16": torch.zeros(4, dtype=torch.float16)})
    with pytest.raises(ArtifactError):
        other_tensors(contents)
