"""OpenVINO IR with packed weights: the numbers, the bytes, what is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import corank
from corank.codecs import CODECS as CODECS_BY_NAME
from corank.codecs import Uniform
from corank.export import export_openvino
from corank.layers import CodedLayer

ov = pytest.importorskip("openvino")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

import openvino.opset13 as ops  # noqa: E402

from corank.export.openvino import CONFIGURATION  # noqa: E402
from corank.export.openvino_weights import NARROW_KINDS, WIDE_KINDS, constant_of_floats, packed, weight_node  # noqa: E402

CODECS = {
    "1": Uniform(bits=1),
    "2 half": Uniform(bits=2, half=True, range="mse"),
    "3 groups": Uniform(bits=3, group=7),
    "4 half groups": Uniform(bits=4, half=True, group=5),
    "8 tensor": Uniform(bits=8, group=-1),
}


def computed(nodes: list[Any]) -> list[Tensor]:
    """What the CPU plugin makes of nodes that have only constants for inputs."""
    lead = ops.parameter([1], ov.Type.f32)
    sums = [
        ops.add(node, ops.reshape(lead, ops.constant([1] * len(node.get_output_shape(0))), False)) for node in nodes
    ]
    compiled = ov.Core().compile_model(ov.Model(sums, [lead]), "CPU", CONFIGURATION)
    found = compiled(np.zeros(1, np.float32))
    return [torch.from_numpy(np.array(found[output])) for output in compiled.outputs]


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("codec", CODECS)
def test_the_weights_are_the_layers(codec: str, rank: int, coded_layers_of: Any) -> None:
    layers: list[CodedLayer] = coded_layers_of(CODECS[codec], rank)
    for kinds in (NARROW_KINDS, WIDE_KINDS):
        found = computed([weight_node(f"layer{place}", layer, kinds) for place, layer in enumerate(layers)])
        for layer, weight in zip(layers, found, strict=True):
            assert weight.shape == layer.weight.shape
            assert torch.allclose(weight, layer.weight, rtol=0, atol=1e-6 * float(layer.weight.abs().max()))


@pytest.mark.parametrize("name", ["dense-shift", "icquant", "kmeans"])
def test_levels_of_any_kind(name: str, coded_layer: Any) -> None:
    layer = coded_layer(nn.Conv2d(6, 8, 3), CODECS_BY_NAME[name](), 0)
    (found,) = computed([weight_node("one", layer, NARROW_KINDS)])
    assert torch.allclose(found, layer.weight, rtol=1e-6, atol=0)


@pytest.mark.parametrize("group", [0, 5, 16, 20])
@pytest.mark.parametrize("bits", [2, 4])
def test_linear_layers_of_groups_of_any_size(bits: int, group: int, coded_layer: Any) -> None:
    """The CPU plugin decodes such layers by itself, wrongly for some sizes; those are folded before it sees them."""
    layer = coded_layer(nn.Linear(40, 6), Uniform(bits=bits, group=group), 0)
    inputs = torch.randn(5, 40)
    lead = ops.parameter([-1, 40], ov.Type.f32)
    product = ops.matmul(lead, weight_node("head", layer, WIDE_KINDS), False, True)
    compiled = ov.Core().compile_model(ov.Model([product], [lead]), "CPU", CONFIGURATION)
    expected = inputs @ layer.weight.T
    found = torch.from_numpy(np.array(compiled(inputs.numpy())[0]))
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("kind", NARROW_KINDS)
@pytest.mark.parametrize("count", [1, 7, 24, 37])
def test_packed_is_read_as_it_was_meant(kind: tuple[int, bool], count: int) -> None:
    from corank.export.openvino_weights import _TYPES

    bits, signed = kind
    low = -(1 << (bits - 1)) if signed else 0
    values = np.random.default_rng(0).integers(low, low + (1 << bits), count)
    data = packed(values, kind)
    assert -(-count * bits // 8) <= len(data) <= -(-count * bits // 8) + (2 if bits == 3 else 0)
    held = ops.constant(ov.Tensor(data, ov.Shape([count]), _TYPES[kind]), shared_memory=False)
    (found,) = computed([ops.convert(held, ov.Type.f32)])
    assert found.tolist() == values.tolist()


def test_floats_are_halved_only_where_that_loses_nothing() -> None:
    exact, inexact = np.full(1000, 0.5, np.float32), np.full(1000, 0.1, np.float32)
    assert constant_of_floats("x", exact).get_type_name() == "Convert"
    assert constant_of_floats("x", inexact).get_type_name() == "Constant"
    assert constant_of_floats("x", exact[:10]).get_type_name() == "Constant"


@pytest.fixture(scope="module")
def exported(coded: nn.Module, images: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return export_openvino(coded, tmp_path_factory.mktemp("openvino") / "small.xml", images[:1])


def test_the_files_compute_what_the_model_does(exported: Any, coded: nn.Module, images: Tensor) -> None:
    assert exported.relative_difference < 1e-5 and exported.latency_ms > 0
    assert sorted(file.name for file in exported.path.parent.iterdir()) == ["small.bin", "small.xml"]
    assert exported.size_bytes == sum(file.stat().st_size for file in exported.files)
    compiled = ov.Core().compile_model(str(exported.path), "CPU", dict(exported.options))
    found = torch.from_numpy(np.array(compiled({"input": images.numpy()})["output"]))
    expected = coded(images)
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max())


def test_three_bits_are_three_bits(exported: Any, coded: nn.Module, images: Tensor, tmp_path: Path) -> None:
    wide = export_openvino(coded, tmp_path / "wide.xml", images[:1], narrow=False)
    at_three = [layer["shape"] for layer in corank.inspect(coded)["layers"] if layer["bits"] == 3]
    saved = wide.files[1].stat().st_size - exported.files[1].stat().st_size
    eighth = sum(rows * columns for rows, columns in at_three) / 8  # a bit of each weight
    assert at_three and eighth - 2 * len(at_three) <= saved <= eighth + 1
    assert any("1, 2 and 3 bits" in note and "narrow=False" in note for note in exported.notes)
    assert any("kept in 4, exactly" in note for note in wide.notes)


def test_rounded_inputs(tmp_path: Path) -> None:
    torch.manual_seed(2)
    network = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.Linear(100, 3))
    images = torch.randn(32, 2, 5, 5)
    quantized = corank.quantize(network.eval(), images, bits=4, budget=0.0, activations=3)
    result = export_openvino(quantized, tmp_path / "rounded.xml", images)
    assert result.relative_difference is not None and result.relative_difference < 2e-2
    assert any("round their inputs" in note for note in result.notes)


def test_what_cannot_be_asked(
    coded: nn.Module, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(corank.ConfigError, match=r"NAME\.xml, with NAME\.bin beside it, not 'x\.onnx'"):
        export_openvino(coded, tmp_path / "x.onnx", images)
    with pytest.raises(corank.ModelError, match="nothing was written: outputs of OpenVINO differ"):
        export_openvino(coded, tmp_path / "x.xml", images[:1], tolerance=1e-12)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(corank.ConfigError, match=r"pip install 'corank\[openvino,onnx\]'"):
        export_openvino(coded, tmp_path / "x.xml", images)
    assert not list(tmp_path.iterdir())
