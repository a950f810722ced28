"""Changed structure in files: what was changed is made anew, and lists that lie are refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.diff import diff
from corank.errors import ArtifactError, ConfigError, ModelError
from corank.export import export_onnx
from corank.inspect import inspect
from corank.layers import RPReLU, Shortcut, apply_structure, find_structure, read_structure
from corank.storage.artifact import serialized
from corank.storage.contents import header_of
from corank.storage.header import read_run
from corank.storage.model_record import ATTRIBUTE, run_of


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net.eval()


IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def coded() -> nn.Module:
    net = network()
    structure = find_structure(net, lambda one: one(IMAGES), ("rprelu", "shortcut"))
    apply_structure(net, structure)
    for module in net.modules():
        if isinstance(module, RPReLU):
            for parameter in module.parameters():
                parameter.data += torch.randn(8) / 4
            module.settle()
    model = corank.quantize(net, IMAGES, bits=3, preset="nearest")
    model.__dict__[ATTRIBUTE] = replace(run_of(model), structure=structure)
    return model


def test_a_file_makes_the_structure_anew_in_the_original_class(coded: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    corank.save(coded, path)
    run = run_of(coded)
    assert list(run.layers) == ["0", "2.conv1", "2.conv2.layer", "5"]
    assert run.folded == ("2.bn1", "2.conv2.norm")
    given = network()
    names = list(given.state_dict())
    with torch.no_grad():
        again = corank.load(path, given)
        assert torch.equal(again(IMAGES), coded(IMAGES))
    assert list(given.state_dict()) == names
    assert serialized(again) == serialized(coded)
    assert run_of(again).structure == run.structure
    assert sum(isinstance(one, Shortcut) for one in again.modules()) == 1
    assert inspect(path)["structure"] == [dict(entry) for entry in run.structure]
    assert all(layer["equal"] for layer in diff(path, path)["layers"])
    # what is trained per channel is stored in fp16
    header = header_of(run, {}, "float32")
    assert header["structure"] == inspect(path)["structure"] and read_run({**header, "tensors": {}}).structure


def test_a_file_on_the_meta_device(coded: nn.Module, tmp_path: Path) -> None:
    corank.save(coded, tmp_path / "model.safetensors")

    def make() -> nn.Module:
        with torch.device("meta"):
            return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), Block(), nn.AdaptiveAvgPool2d(1),
                                 nn.Flatten(), nn.Linear(8, 4))  # fmt: skip

    with torch.no_grad():
        assert torch.equal(corank.load(tmp_path / "model.safetensors", make)(IMAGES), coded(IMAGES))


def test_onnx_gives_the_same(coded: nn.Module, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    result = export_onnx(coded, tmp_path / "model.onnx", IMAGES)
    assert result.relative_difference is not None and result.relative_difference < 1e-4


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_a_changed_network_is_coded_as_any_other(preset: str) -> None:
    net = network()
    apply_structure(net, find_structure(net, lambda one: one(IMAGES), ("rprelu", "shortcut")))
    model = corank.quantize(net, IMAGES, bits=8, preset=preset)
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGES), net(IMAGES), rtol=0.05, atol=0.02)


def test_a_file_without_is_as_it_was() -> None:
    run = run_of(corank.quantize(network(), IMAGES, bits=3, preset="nearest"))
    assert run.structure == () and "structure" not in header_of(run, {}, "float32")


RELU, SHORT, PRODUCT = (
    {"kind": "rprelu", "module": "2", "channels": [8, 8]},
    {"kind": "shortcut", "module": "2.conv2", "norm": None},
    {"kind": "query-key", "module": "2.conv2", "bits": 4},
)
LISTS: list[tuple[Any, str]] = [
    (3, "a structure is a list of at most 10000 entries, not '3'"),
    ([RELU] * 10_001, "a list of at most 10000 entries"),
    ([3], "its kind is one of products, query-key, rotated-stream, rotation, rprelu, shortcut"),
    (
        [{"kind": "exec", "module": "2"}],
        "its kind is one of products, query-key, rotated-stream, rotation, rprelu, shortcut",
    ),
    ([{"kind": ["rprelu"], "module": "2"}], "its kind is one of"),
    ([{**RELU, "more": 1}], "a structure's rprelu has the fields channels, kind, module"),
    ([{"kind": "shortcut", "module": "2.conv2"}], "a structure's shortcut has the fields kind, module, norm"),
    ([{**RELU, "module": 3}], "has the fields"),
    ([{**RELU, "channels": []}], "a list of 1 to 1000 numbers"),
    ([{**RELU, "channels": [8] * 1001}], "a list of 1 to 1000 numbers"),
    ([{**RELU, "channels": [-1]}], "whole numbers"),
    ([{**RELU, "channels": [True]}], "whole numbers"),
    ([{**RELU, "channels": [8.0]}], "whole numbers"),
    ([{**RELU, "channels": [1 << 23]}], "whole numbers"),
    ([{**RELU, "channels": [1 << 22, 1]}], "more than 4194304 channels in all"),
    ([{**SHORT, "norm": 3}], "a module's name or null, not '3'"),
    *(([{**PRODUCT, "bits": bits}], "bits are 2 to 8, or null for float") for bits in (1, 9, 4.0, True, "4", [4])),
    ([{**PRODUCT, "kind": "products", "bits": 0}], "bits are 2 to 8"),
    ([{"kind": "query-key", "module": "2"}], "a structure's query-key has the fields bits, kind, module"),
    ([RELU, RELU], "changes one module twice in the same way"),
]


@pytest.mark.parametrize(("data", "said"), LISTS, ids=range(len(LISTS)))
def test_lists_that_are_no_structure(data: Any, said: str, coded: nn.Module) -> None:
    with pytest.raises(ConfigError, match=said):
        read_structure(data)
    header = header_of(run_of(coded), {}, "float32")
    with pytest.raises(ArtifactError, match="the header is not sound"):
        read_run({**header, "structure": data})


def test_a_name_that_no_file_can_hold(coded: nn.Module) -> None:
    with pytest.raises(ArtifactError, match="not a text"):
        read_run({**header_of(run_of(coded), {}, "float32"), "structure": [{**RELU, "module": "\ud800"}]})


MISFITS = [
    ({**RELU, "module": "7"}, "no module '7'"),
    ({**RELU, "module": "__class__"}, "no module '__class__'"),
    ({**RELU, "module": "2.forward"}, "no module '2.forward'"),
    ({**SHORT, "module": ""}, "no module ''"),
    ({**SHORT, "module": "2.bn1"}, "takes no shortcut"),
    ({**SHORT, "module": "0"}, "takes no shortcut"),
    ({**SHORT, "norm": "2.conv1"}, "a Conv2d is no norm"),
    ({**SHORT, "norm": "2.bn9"}, "no module '2.bn9'"),
    ({**RELU, "module": ""}, "runs all that it holds"),
    (PRODUCT, "a Conv2d is no attention of a kind that is known"),
    ({**PRODUCT, "kind": "products", "module": "7"}, "no module '7'"),
]


@pytest.mark.parametrize(("entry", "said"), MISFITS, ids=range(len(MISFITS)))
def test_entries_that_do_not_fit_the_network(
    entry: dict[str, Any], said: str, coded: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=said):
        apply_structure(network(), [entry])
    forged = copy.deepcopy(coded)
    forged.__dict__[ATTRIBUTE] = replace(run_of(coded), structure=(entry,))
    (tmp_path / "forged").write_bytes(serialized(forged))
    with pytest.raises(ArtifactError, match="does not fit this Sequential"):
        corank.load(tmp_path / "forged", network())


@pytest.mark.parametrize("change", [(), "one", "wide"])
def test_a_file_whose_list_and_tensors_differ_is_refused(change: Any, coded: nn.Module, tmp_path: Path) -> None:
    forged, run = copy.deepcopy(coded), run_of(coded)
    structure = {
        (): (), "one": run.structure[1:],
        "wide": tuple({**entry, "channels": [9] * len(entry["channels"])} if entry["kind"] == "rprelu" else entry
                      for entry in run.structure),
    }[change]  # fmt: skip
    forged.__dict__[ATTRIBUTE] = replace(run, structure=structure)
    (tmp_path / "forged").write_bytes(serialized(forged))
    with pytest.raises(ArtifactError, match="does not fit this Sequential"):
        corank.load(tmp_path / "forged", network())


def test_new_parameters_have_the_networks_dtype(coded: nn.Module) -> None:
    half = network().half()
    apply_structure(half, run_of(coded).structure)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float16}
