"""Ranges of a graph's values: measured, planned, and shared with the nodes that only move numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper  # noqa: E402

import corank  # noqa: E402
from corank.export.graph import coded_layers, float_graph, weight_readers  # noqa: E402
from corank.export.int8_ranges import extremes, of_layers, shared  # noqa: E402


def graph_of(nodes: list[Any], outputs: tuple[str, ...] = ("output",)) -> Any:
    made = helper.make_graph(
        nodes,
        "ranges",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_extremes_are_those_over_all_batches() -> None:
    model = graph_of(
        [helper.make_node("Relu", ["input"], ["half"]), helper.make_node("Mul", ["half", "input"], ["output"])]
    )
    batches = [np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32) for seed in range(3)]
    found = extremes(onnx.shape_inference.infer_shapes(model), ({"input": one} for one in batches), ["Relu", "Mul"])
    whole = np.concatenate(batches)
    halves = np.maximum(whole, 0)
    for name, values in {"input": whole, "half": halves, "output": halves * whole}.items():
        assert found[name] == pytest.approx((values.min(), values.max()))


def test_a_concatenation_shares_its_range() -> None:
    nodes = [
        helper.make_node("Relu", ["input"], ["left"]),
        helper.make_node("Neg", ["input"], ["right"]),
        helper.make_node("Concat", ["left", "right"], ["both"], axis=1),
        helper.make_node("Reshape", ["both", "shape"], ["output"]),
    ]
    ranges = {"left": (0.0, 1.0), "right": (-2.0, 0.5), "both": (-2.0, 1.0), "output": (-3.0, 4.0)}
    found = shared(graph_of(nodes).graph, ranges)
    # The Relu is dropped once its range does its work, so it must not begin below zero.
    assert found == {"left": (0.0, 4.0), "right": (-3.0, 4.0), "both": (-3.0, 4.0), "output": (-3.0, 4.0)}


def test_a_clip_keeps_its_range_and_a_value_read_twice_is_only_widened() -> None:
    nodes = [
        helper.make_node("Clip", ["input"], ["six"]),
        helper.make_node("Concat", ["six", "input"], ["both"], axis=1),
        helper.make_node("Neg", ["input"], ["other"]),
    ]
    ranges = {"input": (-5.0, 5.0), "six": (0.0, 6.0), "both": (-1.0, 9.0)}
    found = shared(graph_of(nodes, ("both", "other")).graph, ranges)
    assert found["six"] == (0.0, 6.0)
    assert found["input"] == (-5.0, 9.0)


def test_planned_steps_are_used_where_only_layers_read_a_value() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.last = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.left(x) + self.right(x))
            return self.last(y) + y[:, :3]

    inputs = torch.randn(32, 6)
    model = corank.quantize(Twice().eval(), inputs, bits=4, activations=8, budget=0.0, preset="nearest")
    graph, layers = float_graph(model, inputs[:1]).graph, coded_layers(model)
    found = of_layers(graph, layers)
    value = weight_readers(graph, "left")[0].input[0]
    assert set(found) == {value}, "what `last` reads is read by the sum as well"
    rounding = [layers[name].input_quantizer() for name in ("left", "right")]
    assert all(one is not None for one in rounding)
    ends = [(-one.offset * float(one.step), (255 - one.offset) * float(one.step)) for one in rounding if one]
    assert found[value] == pytest.approx((min(low for low, _ in ends), max(high for _, high in ends)))
