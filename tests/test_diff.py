"""Two networks that differ in known places."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import corank
from corank.errors import ArtifactError, ModelError
from corank.layers import CodedLayer
from corank.storage.artifact import read
from corank.storage.contents import ArtifactContents


class Net(nn.Module):
    """A norm that is not folded, grouped and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.middle = nn.Conv2d(8, 8, 3, groups=2)
        self.norm = nn.GroupNorm(2, 8)
        self.last = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.middle(self.first(x).relu())).mean(dim=(2, 3)))


def made(**options: object) -> nn.Module:
    torch.manual_seed(0)
    images = torch.randn(16, 3, 8, 8)
    given = {"bits": 3, "budget": 3.0, "preset": "paper", "search": "uniform", **options}
    return corank.quantize(Net().eval(), images, **given)  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return made()


def layer(record: dict[str, object], name: str) -> dict[str, object]:
    (found,) = [entry for entry in record["layers"] if entry["name"] == name]  # pyright: ignore
    return found


def test_a_model_and_its_file_are_equal(model: nn.Module, tmp_path: Path) -> None:
    corank.save(model, tmp_path / "a")
    for found in (corank.diff(model, tmp_path / "a"), corank.diff(tmp_path / "a", tmp_path / "a")):
        assert found["equal"] and found["tensors"] == [] and found["other_tensors"] > 0
        assert [entry["name"] for entry in found["layers"]] == ["first", "middle", "last"]
        assert all(entry["equal"] and entry["codes_differ"] == entry["weight_change"] == 0 for entry in found["layers"])
        assert found["a"]["stored_bytes"] == found["b"]["stored_bytes"] == (tmp_path / "a").stat().st_size


def test_where_it_came_from_does_not_matter(model: nn.Module) -> None:
    found = corank.diff(model, made(reference="another name", seed=3))
    assert found["equal"]
    assert (found["a"]["model"], found["b"]["model"], found["b"]["seed"]) == (None, "another name", 3)


def test_changed_codes_are_counted(model: nn.Module) -> None:
    other = copy.deepcopy(model)
    coded = other.get_submodule("middle")
    assert isinstance(coded, CodedLayer)
    before = coded.weight.clone()
    code = coded.code()
    code.weight.codes.view(-1)[:9] ^= 1
    coded.fill(code, coded.bias)
    found = corank.diff(model, other)
    assert not found["equal"] and found["tensors"] == []
    assert [entry["equal"] for entry in found["layers"]] == [True, False, True]
    changed = layer(found, "middle")
    assert changed["codes_differ"] == pytest.approx(9 / before.numel())
    assert changed["weight_change"] == pytest.approx(float((coded.weight - before).norm() / before.norm()), rel=1e-5)


def test_other_bits_and_ranks_have_no_common_codes_but_a_distance(model: nn.Module) -> None:
    other = made(bits=4, budget=0)
    changed = layer(corank.diff(model, other), "middle")
    assert changed["a"]["bits"] == 3 and changed["b"]["bits"] == 4  # pyright: ignore
    assert changed["a"]["rank"] > changed["b"]["rank"] == 0  # pyright: ignore
    assert changed["codes_differ"] is None
    ours, theirs = (one.get_submodule("middle").weight for one in (model, other))
    assert changed["weight_change"] == pytest.approx(float((ours - theirs).norm() / ours.norm()), rel=1e-5)


def test_an_adapter_alone_makes_a_layer_differ(model: nn.Module) -> None:
    changed = layer(corank.diff(model, made(adapter_bits=6)), "middle")
    assert changed["codes_differ"] == 0 and changed["weight_change"] > 0 and not changed["equal"]  # pyright: ignore


def test_layers_that_only_one_codes(model: nn.Module) -> None:
    found = corank.diff(model, made(layers={"last": "float"}))
    assert layer(found, "last")["b"] is None and layer(found, "last")["weight_change"] is None
    assert found["skipped"] == {"a": [], "b": ["last"]} and not found["equal"]
    assert {entry["name"]: entry["a"] for entry in found["tensors"]}["last.weight"] is None


def test_layers_of_another_shape() -> None:
    def wide(channels: int) -> nn.Module:
        return nn.Sequential(nn.Linear(4, channels), nn.ReLU(), nn.Linear(channels, 2)).eval()

    ours, theirs = (corank.quantize(wide(size), torch.randn(8, 4), preset="nearest", budget=0) for size in (6, 8))
    found = corank.diff(ours, theirs)
    assert all(entry["codes_differ"] is None and entry["weight_change"] is None for entry in found["layers"])
    assert found["tensors"][0]["max_difference"] is None and not found["equal"]


def test_a_tensor_that_differs_says_by_how_much(model: nn.Module) -> None:
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.get_parameter("norm.weight")[2] += 0.25
        other.get_parameter("norm.bias")[1] = float("nan")
    found = corank.diff(model, other)
    assert {entry["name"]: entry["max_difference"] for entry in found["tensors"]} == {
        "norm.weight": 0.25,
        "norm.bias": None,
    }
    assert corank.diff(other, copy.deepcopy(other))["equal"], "NaN equals itself"
    json.dumps(found, allow_nan=False)


def test_a_number_stored_in_another_width_is_no_difference(model: nn.Module) -> None:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for one in (model, other):
            one.get_parameter("norm.weight").fill_(1.0)
    assert corank.diff(model, other)["equal"]
    with torch.no_grad():
        other.get_parameter("norm.weight")[0] = 1 + 2**-20  # fp16 does not hold it
    (entry,) = corank.diff(model, other)["tensors"]
    assert (entry["a"]["dtype"], entry["b"]["dtype"], entry["max_difference"]) == ("float16", "float32", 2**-20)


def test_what_is_no_artifact_is_refused(model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        corank.diff(model, tmp_path / "none")
    with pytest.raises(ModelError, match="not made by corank"):
        corank.diff(Net(), model)


def test_a_file_that_lists_more_than_it_holds_is_refused(model: nn.Module, tmp_path: Path) -> None:
    corank.save(model, tmp_path / "a")
    _, contents = read(tmp_path / "a")
    contents.header["tensors"]["float16"][0][1] = [1 << 40]
    hostile = ArtifactContents(contents.header, contents.blobs)
    (tmp_path / "b").write_bytes(hostile.serialize())
    with pytest.raises(ArtifactError, match=r"the header needs .* bytes more than there are"):
        corank.diff(tmp_path / "a", tmp_path / "b")
