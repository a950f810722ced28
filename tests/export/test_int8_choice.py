"""Layers that stay in float: they come with those that write and read the same value, and are worth it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper  # noqa: E402

from corank.export.int8_choice import harmed_layers  # noqa: E402
from corank.export.int8_errors import LayerError  # noqa: E402


def layer(name: str, read: str, written: str) -> Any:
    return helper.make_node("Conv", [read, f"{name}.weight"], [written])


def graph(nodes: list[Any], output: str) -> Any:
    value = helper.make_tensor_value_info
    return helper.make_graph(
        nodes, "g", [value("input", TensorProto.FLOAT, None)], [value(output, TensorProto.FLOAT, None)]
    )


CHAIN = graph(
    [
        layer("a", "input", "a1"),
        helper.make_node("Relu", ["a1"], ["a2"]),
        helper.make_node("MaxPool", ["a2"], ["a3"], kernel_shape=[2, 2]),
        layer("b", "a3", "b1"),
        helper.make_node("Relu", ["b1"], ["b2"]),
        layer("c", "b2", "c1"),
        layer("d", "b2", "d1"),
        helper.make_node("Add", ["c1", "d1"], ["e1"]),
        layer("e", "e1", "output"),
    ],
    "output",
)


def errors(**harms: tuple[float, int]) -> dict[str, LayerError]:
    return {name: LayerError(torch.zeros(1), harm, operations) for name, (harm, operations) in harms.items()}


def test_a_layer_comes_with_those_that_write_its_input() -> None:
    found = errors(a=(0.0, 5), b=(0.5, 5), c=(0.01, 30), d=(0.01, 30), e=(0.1, 30))
    assert harmed_layers(CHAIN, found, 0.2) == {"a", "b"}


def test_a_layer_comes_with_those_that_read_the_same() -> None:
    found = errors(a=(0.0, 60), b=(0.0, 10), c=(0.5, 10), d=(0.0, 10), e=(0.1, 10))
    assert harmed_layers(CHAIN, found, 0.4) == {"b", "c", "d"}
    assert harmed_layers(CHAIN, found, 0.2) == frozenset(), "they do not fit"


def test_what_a_sum_writes_is_rounded_in_any_case() -> None:
    assert harmed_layers(CHAIN, errors(a=(0, 5), b=(0, 5), c=(0, 5), d=(0, 5), e=(9.0, 5)), 1.0) == frozenset()


def test_only_what_is_worth_its_operations() -> None:
    assert harmed_layers(CHAIN, errors(a=(0.3, 30), b=(0.2, 20), c=(0.2, 20), d=(0.2, 20), e=(0.1, 10)), 0.9) == set()
    assert harmed_layers(CHAIN, errors(a=(8e-4, 1), b=(0, 9), c=(0, 9), d=(0, 9), e=(0, 9)), 0.5) == set(), "harmless"


def test_none_but_those_asked_for() -> None:
    found = errors(a=(0.9, 1), b=(0.5, 5), c=(0.0, 30), d=(0.0, 30), e=(0.0, 30))
    assert harmed_layers(CHAIN, found, 0.0, ["d"]) == {"d"}
    assert harmed_layers(CHAIN, found, 0.2, ["d"]) == {"a", "b", "d"}
