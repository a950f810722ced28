"""Products with packed codes in onnxruntime: the same codes, the same weights, what is left as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import corank
from corank.codecs import KMeans, Uniform
from corank.export import export_onnx_matmulnbits
from corank.layers import CodedLayer

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from corank.export.onnx_packed import DOMAIN, pack_products  # noqa: E402
from corank.export.onnx_weights import halve  # noqa: E402

COLUMNS, ROWS = 96, 6
EXACT = {
    "2": Uniform(bits=2),
    "2 half": Uniform(bits=2, half=True, range="mse"),
    "3": Uniform(bits=3),
    "4": Uniform(bits=4),
    "4 symmetric": Uniform(bits=4, symmetric=True),
    "4 tensor": Uniform(bits=4, group=-1),
    "4 groups": Uniform(bits=4, group=48),
}
ROUNDED = {
    "4 half": Uniform(bits=4, half=True, range="mse"),
    "4 half groups": Uniform(bits=4, half=True, range="mse", group=32),
    "6 half": Uniform(bits=6, half=True, range="mse"),
    "8": Uniform(bits=8),
    "8 groups": Uniform(bits=8, group=16),
}


def graph_of(weight: Tensor, gemm: bool = False) -> Any:
    """A product with a weight ``(R, C)``, and a look-up of its rows."""
    make, kinds = onnx.helper.make_node, onnx.TensorProto
    product = [make("Transpose", ["one.weight"], ["turned"], perm=[1, 0]), make("MatMul", ["x", "turned"], ["y"])]
    if gemm:
        product = [make("Gemm", ["x", "one.weight", "bias"], ["y"], transB=1)]
    nodes = [*product, make("Gather", ["one.weight", "ids"], ["rows"])]
    inputs = [
        onnx.helper.make_tensor_value_info("x", kinds.FLOAT, [None, COLUMNS]),
        onnx.helper.make_tensor_value_info("ids", kinds.INT64, [None, None]),
    ]
    shapes = {"y": [None, ROWS], "rows": [None, None, COLUMNS]}
    outputs = [onnx.helper.make_tensor_value_info(name, kinds.FLOAT, shape) for name, shape in shapes.items()]
    held = {"one.weight": weight, "bias": torch.arange(ROWS, dtype=torch.float32)}
    constants = [onnx.numpy_helper.from_array(value.numpy(), name) for name, value in held.items()]
    return onnx.helper.make_graph(nodes, "packed", inputs, outputs, constants)


def ran(graph: Any, x: Tensor) -> list[Tensor]:
    halve(graph)
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid(DOMAIN, 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    ids = np.arange(ROWS, dtype=np.int64).reshape(2, -1)
    return [torch.from_numpy(one) for one in session.run(None, {"x": x.numpy(), "ids": ids})]


def packed(layer: CodedLayer, x: Tensor, level: int = 0, gemm: bool = False) -> tuple[Any, list[Tensor]]:
    graph = graph_of(layer.weight, gemm)
    assert pack_products(graph, {"one": layer}, level) == []
    kinds = {node.op_type for node in graph.node}
    assert kinds >= {"MatMulNBits", "GatherBlockQuantized"} and "Gemm" not in kinds
    assert "one.weight" not in {one.name for one in graph.initializer}
    return graph, ran(graph, x)


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("codec", EXACT | ROUNDED)
def test_products_and_rows_are_the_layers(codec: str, rank: int, coded_layer: Any) -> None:
    layer = coded_layer(nn.Linear(COLUMNS, ROWS), (EXACT | ROUNDED)[codec], rank)
    _, (columns, rows) = packed(layer, torch.eye(COLUMNS))
    weight = layer.weight
    for found in (columns.T, rows.flatten(0, 1)):
        assert found.shape == weight.shape
        assert torch.allclose(found, weight, rtol=0, atol=1e-6 * float(weight.abs().max()))
        assert rank or codec in ROUNDED or torch.equal(found, weight)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_codes_are_kept_as_they_are_and_take_their_bits(bits: int, coded_layer: Any) -> None:
    layer = coded_layer(nn.Linear(COLUMNS, ROWS), Uniform(bits=bits), 0)
    graph, _ = packed(layer, torch.eye(COLUMNS))
    held = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    width = 2 if bits == 2 else 4
    planes = [held[f"one.{name}"] for name in (("high", "low") if bits == 8 else ("codes",))]
    apart = [
        np.stack([one >> at & (1 << width) - 1 for at in range(0, 8, width)], -1).reshape(ROWS, -1) for one in planes
    ]
    codes = apart[0] * 16 + apart[1] if bits == 8 else apart[0]
    assert np.array_equal(codes[:, :COLUMNS], layer.code().weight.codes.numpy())
    assert sum(one.nbytes for one in planes) == ROWS * COLUMNS * {2: 2, 3: 4, 4: 4, 8: 8}[bits] // 8
    assert held["one.high.scale" if bits == 8 else "one.codes.scale"].size == ROWS, "one for a row"


@pytest.mark.parametrize("codec", EXACT | ROUNDED)
def test_rounded_inputs_are_near(codec: str, coded_layer: Any) -> None:
    layer = coded_layer(nn.Linear(COLUMNS, ROWS), (EXACT | ROUNDED)[codec], 0)
    x = torch.randn(5, COLUMNS)
    graph, (found, rows) = packed(layer, x, level=4)
    assert {one.i for node in graph.node for one in node.attribute if one.name == "accuracy_level"} == {4}
    assert sum(node.op_type == "MatMulNBits" for node in graph.node) == 1, "8 bits at once"
    expected = x @ layer.weight.T
    assert 0 < float((found - expected).abs().max()) < 0.03 * float(expected.abs().max())
    assert torch.allclose(rows.flatten(0, 1), layer.weight, atol=1e-6)


def test_a_bias_is_added(coded_layer: Any) -> None:
    layer = coded_layer(nn.Linear(COLUMNS, ROWS), Uniform(bits=4), 0)
    x = torch.randn(3, COLUMNS)
    _, (found, _) = packed(layer, x, gemm=True)
    assert torch.allclose(found, x @ layer.weight.T + torch.arange(ROWS), atol=1e-5)


@pytest.mark.parametrize("codec", [Uniform(bits=4, group=12), KMeans(bits=4)])
def test_what_the_operators_cannot_hold_is_left(codec: Any, coded_layer: Any) -> None:
    layer = coded_layer(nn.Linear(COLUMNS, ROWS), codec, 0)
    graph = graph_of(layer.weight)
    before = graph.SerializeToString()
    assert pack_products(graph, {"one": layer}, 0) == ["one"] and graph.SerializeToString() == before


def test_a_network_with_other_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(40, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    x = torch.randn(8, 2, 12)
    small = corank.quantize(network, x, bits=4, budget=0, preset="nearest")
    result = export_onnx_matmulnbits(small, tmp_path / "small.onnx", x)
    assert result.relative_difference is not None and result.relative_difference < 1e-5 and result.options == {}
    assert result.notes == ("packed in memory: 2 of 3 layers", "composed as floats when the file is opened: 0")
    with pytest.raises(corank.ConfigError, match="accuracy_level=1: 0 for float32, or 4"):
        export_onnx_matmulnbits(small, tmp_path / "other.onnx", x, accuracy_level=1)
    convolution = corank.quantize(network[:2], x, bits=4, budget=0, preset="nearest")
    with pytest.raises(corank.ModelError, match="no layer can be multiplied as codes"):
        export_onnx_matmulnbits(convolution, tmp_path / "other.onnx", x)
    assert [file.name for file in tmp_path.iterdir()] == ["small.onnx"]
