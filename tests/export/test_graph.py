"""The float graph: weights by name, an open batch, nothing left of the exporter's notes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from corank.export.graph import (  # noqa: E402
    coded_layers,
    float_graph,
    float_model,
    initializer_index,
    weight_name,
    weight_readers,
)  # fmt: skip


def answer(graph: Any, inputs: dict[str, Tensor]) -> Tensor:
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {name: value.numpy() for name, value in inputs.items()})[0])


@pytest.fixture(scope="module")
def graph(coded: nn.Module, images: Tensor) -> Any:
    return float_graph(coded, images[:1])


def test_it_computes_what_the_network_does_for_any_batch(graph: Any, coded: nn.Module, images: Tensor) -> None:
    for count in (1, 5):
        expected = coded(images[:count])
        assert (answer(graph, {"input": images[:count]}) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_every_weight_is_there_once_as_pytorch_keeps_it(graph: Any, coded: nn.Module) -> None:
    layers, plain = coded_layers(coded), float_model(coded)
    assert set(layers) == {name for name, module in coded.named_modules() if type(module).__name__.startswith("Coded")}
    for name in layers:
        held = graph.graph.initializer[initializer_index(graph.graph, weight_name(name))]
        assert torch.equal(torch.from_numpy(onnx.numpy_helper.to_array(held).copy()), plain.get_submodule(name).weight)  # pyright: ignore
    kinds = {name: [node.op_type for node in weight_readers(graph.graph, name)] for name in layers}
    assert kinds["body.3"] == ["Conv", "Conv"] and kinds["body.6"] == ["ConvTranspose"]
    assert kinds["tokens"] == ["MatMul"] and kinds["head"] == ["Gemm"]


def test_the_exporters_notes_are_taken_out(graph: Any) -> None:
    data = graph.SerializeToString()
    assert b"stack_trace" not in data and b"network." not in data
    onnx.checker.check_model(graph, full_check=True)
    assert [value.name for value in graph.graph.input] == ["input"]
    assert [value.name for value in graph.graph.output] == ["output"]


def test_a_plain_model_and_named_inputs_and_outputs() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 2)

        def forward(self, left: Tensor, right: Tensor) -> dict[str, Any]:
            return {"logits": self.head(left + right), "cache": object()}

    example = {"left": torch.randn(1, 4), "right": torch.randn(1, 4)}
    model = Sum().eval()
    graph = float_graph(model, example, layers=["head"])
    assert [value.name for value in graph.graph.input] == ["left", "right"]
    assert [value.name for value in graph.graph.output] == ["logits"]
    many = {name: value.repeat(3, 1) for name, value in example.items()}
    assert torch.allclose(answer(graph, many), model(**many)["logits"], atol=1e-6)


def test_a_model_that_cannot_be_traced_is_said_so() -> None:
    class Peeks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x) if float(x.sum()) > 0 else x

    with pytest.raises(corank.ModelError, match=r"torch\.onnx cannot export this Peeks"):
        float_graph(Peeks().eval(), torch.ones(2, 4))


def test_an_unknown_layer_is_refused(every_kind: nn.Module, images: Tensor) -> None:
    with pytest.raises(corank.ModelError, match="no layer 'elsewhere'"):
        float_graph(every_kind, images, layers=["elsewhere"])
