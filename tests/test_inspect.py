"""The record of a model and of its file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import corank
from corank.errors import ModelError
from corank.layers import CodedLayer
from corank.storage.artifact import read


@pytest.fixture(scope="module")
def float_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 4)).eval()


@pytest.fixture(scope="module")
def model(float_model: nn.Module) -> nn.Module:
    images = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return corank.quantize(float_model, images, bits=3, budget=2.0, search="greedy")


@pytest.fixture
def file(model: nn.Module, tmp_path: Path) -> Path:
    corank.save(model, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def layers_of(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {layer["name"]: layer for layer in record["layers"]}


def test_the_parts_add_up_to_the_file(model: nn.Module, file: Path) -> None:
    record = corank.inspect(file)
    assert sum(record["stored_parts"].values()) == record["stored_bytes"] == file.stat().st_size
    assert corank.inspect(model)["stored_parts"] == record["stored_parts"]
    assert list(record["stored_parts"]) == ["codes", "scales", "adapter", "other tensors", "header"]
    _, contents = read(file)
    inside = sum(record["stored_parts"][part] for part in ("codes", "scales", "adapter"))
    assert inside == sum(
        contents.blobs[name].numel() * contents.blobs[name].element_size() for name in ("codes", "scales")
    )


def test_a_layers_parts_add_up_to_its_bytes(file: Path) -> None:
    for layer in corank.inspect(file)["layers"]:
        assert math.ceil(sum(layer["stored_bits"].values()) / 8) == layer["bytes"]
        assert layer["stored_bits"]["codes"] == layer["bits"] * math.prod(layer["shape"])
        assert (layer["stored_bits"]["adapter"] > 0) == (layer["rank"] > 0)


def test_codes_are_counted_only_if_asked(model: nn.Module, file: Path) -> None:
    assert "code_counts" not in corank.inspect(file)["layers"][0]
    for given in (model, file):
        for name, layer in layers_of(corank.inspect(given, codes=True)).items():
            module = model.get_submodule(name)
            assert isinstance(module, CodedLayer)
            codes = module.code().weight.codes
            assert layer["code_counts"] == [int((codes == code).sum()) for code in range(1 << layer["bits"])]
            share = [count / codes.numel() for count in layer["code_counts"] if count]
            assert layer["code_entropy"] == pytest.approx(-sum(p * math.log2(p) for p in share))
            assert layer["code_entropy"] <= layer["bits"]


def test_the_float_weights_spread_is_known_to_the_model_but_not_kept_in_the_file(
    float_model: nn.Module, model: nn.Module, file: Path
) -> None:
    ours, theirs = (layers_of(corank.inspect(given, codes=True)) for given in (model, file))
    for name, layer in ours.items():
        weight = float_model.get_submodule(name).get_parameter("weight").detach()
        assert layer["weight_range"] == pytest.approx([float(weight.min()), float(weight.max())])
        assert sum(layer["float_counts"]) == sum(layer["coded_counts"]) == weight.numel()
        assert layer["float_counts"] != layer["coded_counts"]
        assert theirs[name]["float_counts"] == [] and sum(theirs[name]["coded_counts"]) == weight.numel()


def test_a_model_of_another_kind_is_refused(float_model: nn.Module) -> None:
    with pytest.raises(ModelError, match="not made by corank"):
        corank.inspect(float_model)
