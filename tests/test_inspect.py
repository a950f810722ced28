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
from corank.storage.coders import entropy


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
    corank.save(model, file, coder="fixed")
    record = corank.inspect(file)
    assert sum(record["stored_parts"].values()) == record["stored_bytes"] == record["fixed_bytes"]
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


def test_bits_before_and_after_coding_are_those_of_the_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Linear(96, 90), nn.ReLU(), nn.Linear(90, 80), nn.ReLU(), nn.Linear(80, 4)).eval()
    model, file = corank.quantize(wide, torch.randn(32, 96), bits=3, preset="paper", budget=1.0), tmp_path / "coded"
    corank.save(model, file)
    fixed_bytes = corank.save(model, tmp_path / "fixed.safetensors", coder="fixed")
    for given in (model, file):
        record = corank.inspect(given, codes=True)
        assert record["stored_bytes"] == file.stat().st_size < record["fixed_bytes"] == fixed_bytes
        for name, layer in layers_of(record).items():
            weights = math.prod(layer["shape"])
            assert layer["bits_per_weight"] == pytest.approx(sum(layer["stored_bits"].values()) / weights)
            assert (layer["file_bits_per_weight"] < layer["bits_per_weight"]) or layer["coder"] == "fixed"
            code = model.get_submodule(name).code()  # pyright: ignore[reportCallIssue]
            zeros = code.weight.codebook.spread(code.weight.codebook.offset.floor(), code.weight.codes.shape[1])
            relative = (code.weight.codes.int() - zeros.int()) % (1 << layer["bits"])
            assert layer["relative_entropy"] == pytest.approx(entropy(relative, 1 << layer["bits"]))
        in_file = sum(layer["file_bits_per_weight"] * math.prod(layer["shape"]) for layer in record["layers"]) / 8
        parts = record["stored_parts"]
        assert in_file == pytest.approx(parts["codes"] + parts["scales"] + parts["adapter"], rel=0.01)
    plain = corank.inspect(tmp_path / "fixed.safetensors")
    assert plain["stored_bytes"] == plain["fixed_bytes"] == fixed_bytes
    assert all(layer["coder"] == "fixed" for layer in plain["layers"])
    assert [layer["bits_per_weight"] for layer in plain["layers"]] == [
        layer["file_bits_per_weight"] for layer in plain["layers"]
    ]


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
