"""ONNX files with packed weights: the numbers, the bytes, what is refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import corank
from corank.codecs import CODECS as CODECS_BY_NAME
from corank.codecs import Uniform
from corank.export import export_onnx
from corank.layers import CodedLayer

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from corank.export.onnx_weights import DENSE_KINDS, KINDS, TWO_BIT_KINDS, halve, replace_weights  # noqa: E402

CODECS = {
    "2": Uniform(bits=2),
    "2 half": Uniform(bits=2, half=True, range="mse"),
    "3 symmetric": Uniform(bits=3, symmetric=True),
    "3 groups": Uniform(bits=3, group=7),
    "4 tensor": Uniform(bits=4, group=-1),
    "4 half groups": Uniform(bits=4, half=True, group=5),
    "8": Uniform(bits=8),
}
OTHERS = sorted(set(CODECS_BY_NAME) - {"uniform"})


def weight_alone(layer: CodedLayer, kinds: Any, opset: int, dense: bool = False) -> tuple[Any, Tensor]:
    """A graph that gives only the layer's weight, and that weight as onnxruntime computes it."""
    held = onnx.numpy_helper.from_array(layer.weight.numpy(), "one.weight")
    output = onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, list(layer.weight.shape))
    node = onnx.helper.make_node("Identity", ["one.weight"], ["output"])
    graph = onnx.helper.make_graph([node], "weight", [], [output], [held])
    replace_weights(graph, {"one": layer}, kinds, dense)
    halve(graph)
    opsets = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=13 if opset > 21 else 10)
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return model, torch.from_numpy(session.run(None, {})[0])


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("codec", CODECS)
def test_the_weight_in_the_file_is_the_layers(codec: str, rank: int, coded_layers_of: Any) -> None:
    for layer in coded_layers_of(CODECS[codec], rank):
        for kinds, opset, dense in ((TWO_BIT_KINDS, 25, False), (KINDS, 21, False), (DENSE_KINDS, 21, True)):
            _, found = weight_alone(layer, kinds, opset, dense)
            assert found.shape == layer.weight.shape
            if layer.rank:
                assert torch.allclose(found, layer.weight, rtol=0, atol=1e-6 * float(layer.weight.abs().max()))
            else:
                assert torch.equal(found, layer.weight)


@pytest.mark.parametrize("bits", range(1, 9))
def test_dense_codes_take_their_bits(bits: int, coded_layer: Any) -> None:
    layer = coded_layer(nn.Linear(40, 5), Uniform(bits=bits), 0)
    model, found = weight_alone(layer, DENSE_KINDS, 21, dense=True)
    assert torch.equal(found, layer.weight)
    held = {one.name: len(one.raw_data) for one in model.graph.initializer}
    assert held["one.codes" if bits in (4, 8) else "one.planes"] == 40 * 5 // 8 * bits
    assert "DequantizeLinear" not in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_codec_has_a_form(name: str, coded_layer: Any) -> None:
    layer = coded_layer(nn.Conv2d(6, 8, 3), CODECS_BY_NAME[name](), 0)
    _, found = weight_alone(layer, TWO_BIT_KINDS, 25)
    assert torch.allclose(found, layer.weight, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("codec", "opset", "type_name", "packed"),
    [("2", 25, "UINT2", 432 // 4), ("2", 21, "INT4", 432 // 2), ("3 symmetric", 25, "INT4", 432 // 2)],
)
def test_codes_stay_packed(codec: str, opset: int, type_name: str, packed: int, coded_layer: Any) -> None:
    layer = coded_layer(nn.Conv2d(6, 8, 3), CODECS[codec], 0)
    model, _ = weight_alone(layer, TWO_BIT_KINDS if opset > 21 else KINDS, opset)
    held = {one.name: one for one in model.graph.initializer}
    codes = held["one.codes"]
    assert codes.data_type == onnx.TensorProto.DataType.Value(type_name)
    assert len(codes.raw_data) == packed and list(codes.dims) == [8, 6, 3, 3]
    assert [node.op_type for node in model.graph.node] == ["DequantizeLinear", "Identity"]


def test_wide_layers_keep_fp16_scales(coded_layer: Any) -> None:
    layer = coded_layer(nn.Linear(16, 200), Uniform(bits=4), 0)
    model, _ = weight_alone(layer, KINDS, 21)
    assert {one.name: one.data_type for one in model.graph.initializer}["one.scale.half"] == onnx.TensorProto.FLOAT16


def test_halve_keeps_what_fp16_does_not_hold() -> None:
    values = {"exact": np.full(100, 0.5, np.float32), "inexact": np.full(100, 0.1, np.float32)}
    values |= {"large": np.full(100, 1e9, np.float32), "short": np.full(3, 0.5, np.float32)}
    held = [onnx.numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = onnx.helper.make_graph([], "floats", [], [], held)
    halve(graph)
    kinds = {one.name: one.data_type for one in graph.initializer}
    assert [name for name, kind in kinds.items() if kind == onnx.TensorProto.FLOAT16] == ["exact.half"]
    assert set(kinds) == {"exact.half", "inexact", "large", "short"}


def session_of(path: Path, entries: Mapping[str, str], optimized: Path | None = None) -> Any:
    """A session with those entries; its optimized graph is written where asked."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    for name, value in entries.items():
        options.add_session_config_entry(name, value)
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def opened(path: Path, entries: Mapping[str, str], optimized: Path | None = None) -> Callable[[Tensor], Tensor]:
    """What the file computes in such a session."""
    session = session_of(path, entries, optimized)
    return lambda images: torch.from_numpy(session.run(None, {"input": images.numpy()})[0])


@pytest.fixture(scope="module")
def exported(coded: nn.Module, images: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return export_onnx(coded, tmp_path_factory.mktemp("onnx") / "small.onnx", images[:1])


def test_the_file_computes_what_the_model_does(exported: Any, coded: nn.Module, images: Tensor) -> None:
    assert exported.relative_difference < 1e-5 and exported.latency_ms > 0
    assert exported.size_bytes == exported.path.stat().st_size and exported.artifact_bytes > 0
    assert [file.name for file in exported.path.parent.iterdir()] == ["small.onnx"]
    expected = coded(images)
    for entries in (exported.options, {}):
        found = opened(exported.path, entries)(images)
        assert float((found - expected).abs().max()) < 1e-5 * expected.abs().max()


def test_the_session_option_folds_every_weight(exported: Any, tmp_path: Path) -> None:
    opened(exported.path, exported.options, tmp_path / "folded.onnx")
    kinds = {node.op_type for node in onnx.load(tmp_path / "folded.onnx").graph.node}
    assert "Conv" in kinds and kinds.isdisjoint({"DequantizeLinear", "Cast"})


def test_a_dense_file_is_smaller_and_folds_in_any_session(
    exported: Any, coded: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    result = export_onnx(coded, tmp_path / "dense.onnx", images[:1], dense=True)
    assert result.target == "onnx-dense" and result.options == {}
    assert result.relative_difference is not None and result.relative_difference < 1e-5
    opened(result.path, {}, tmp_path / "folded.onnx")
    kinds = {node.op_type for node in onnx.load(tmp_path / "folded.onnx").graph.node}
    assert "Conv" in kinds and kinds.isdisjoint({"DequantizeLinear", "Cast", "BitShift"})


def test_equal_models_give_equal_bytes(exported: Any, coded: nn.Module, images: Tensor, tmp_path: Path) -> None:
    export_onnx(coded, tmp_path / "again.onnx", images[:1])
    assert (tmp_path / "again.onnx").read_bytes() == exported.path.read_bytes()


def test_rounded_inputs_become_quantize_nodes(tmp_path: Path) -> None:
    torch.manual_seed(2)
    network = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.Linear(100, 3))
    images = torch.randn(32, 2, 5, 5)
    for bits in (3, 8):
        quantized = corank.quantize(network.eval(), images, bits=4, budget=0.0, activations=bits)
        result = export_onnx(quantized, tmp_path / "rounded.onnx", images)
        kinds = [node.op_type for node in onnx.load(result.path).graph.node]
        assert kinds.count("QuantizeLinear") == 2 and kinds.count("Clip") == (2 if bits < 8 else 0)
        assert result.relative_difference is not None and result.relative_difference < 2e-2
        assert any("round their inputs" in note for note in result.notes)
        found = opened(result.path, result.options)(images)
        difference = (found - quantized(images)).abs().amax(1)
        # All but the few samples in which a sum falls on the other side of a step agree to float32.
        assert float((difference < 1e-5 * float(found.abs().max())).float().mean()) > 0.8


def test_inputs_by_name_of_any_length(tmp_path: Path) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.mix, self.head = nn.Embedding(20, 16), nn.Linear(16, 16), nn.Linear(16, 5)

        def forward(self, ids: Tensor, weights: Tensor) -> dict[str, Tensor]:
            return {"logits": self.head(torch.relu(self.mix(self.embed(ids))) * weights[..., None])}

    example = {"ids": torch.randint(0, 20, (4, 6)), "weights": torch.rand(4, 6)}
    model = corank.quantize(Tokens().eval(), [example], bits=4, budget=0.0, preset="nearest")
    result = export_onnx(model, tmp_path / "tokens.onnx", example, dynamic=(0, 1))
    session = session_of(result.path, result.options)
    longer = {"ids": torch.randint(0, 20, (3, 11)), "weights": torch.rand(3, 11)}
    (found,) = session.run(["logits"], {name: value.numpy() for name, value in longer.items()})
    assert torch.allclose(torch.from_numpy(found), model(**longer)["logits"], rtol=0, atol=1e-5)
    with pytest.raises(corank.ConfigError, match="axis 1 of the example is 1 long"):
        export_onnx(model, result.path, {name: value[:, :1] for name, value in example.items()}, dynamic=(0, 1))


def test_a_difference_is_refused_and_the_old_file_kept(coded: nn.Module, images: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "kept.onnx"
    path.write_bytes(b"old")
    with pytest.raises(corank.ModelError, match="nothing was written: outputs of onnxruntime differ"):
        export_onnx(coded, path, images[:1], tolerance=1e-12)
    assert path.read_bytes() == b"old" and [file.name for file in tmp_path.iterdir()] == ["kept.onnx"]


def test_what_cannot_be_asked(coded: nn.Module, every_kind: nn.Module, images: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    with pytest.raises(corank.ConfigError, match="opset=13: 21 to 25"):
        export_onnx(coded, path, images, opset=13)
    with pytest.raises(corank.ConfigError, match="tolerance=-1"):
        export_onnx(coded, path, images, tolerance=-1)
    with pytest.raises(corank.ModelError, match="not made by corank"):
        export_onnx(every_kind, path, images)
    with pytest.raises(corank.OutputError, match="cannot write"):
        export_onnx(coded, tmp_path / "no" / "x.onnx", images)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(
    coded: nn.Module, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(corank.ConfigError, match=r"pip install 'corank\[onnx\]'"):
        export_onnx(coded, tmp_path / "x.onnx", images)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_other_floats_are_exported_in_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)).to(dtype)
    x = torch.randn(8, 3, 8, 8)
    small = corank.quantize(model, x.to(dtype), bits=4, budget=0, preset="nearest")
    for example in (x[:1].to(dtype), x[:1]):
        result = export_onnx(small, tmp_path / "small.onnx", example)
        assert result.relative_difference is not None and result.relative_difference < 1e-4
