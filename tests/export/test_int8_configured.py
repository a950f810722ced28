"""Int8 graphs by configuration: all build and run, from the same numbers come the same bytes, kernels are integer."""

from __future__ import annotations

from itertools import product

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from corank.calibration import Samples, run
from corank.errors import ConfigError
from corank.export.int8_configured import ConfiguredInt8, Int8Configuration
from corank.export.int8_schemes import SCHEMES
from corank.export.onnx_session import kernels_of, open_session
from corank.layers import prepare


class Small(nn.Module):
    """A chain, a sum and a pool: what ranges pass through."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.pool, self.last = nn.MaxPool2d(2), nn.Linear(8 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.last(self.pool(torch.relu(self.second(x) + x)).flatten(1))


@pytest.fixture(scope="module")
def network() -> ConfiguredInt8:
    torch.manual_seed(0)
    model = Small().eval()
    samples = Samples.of(torch.randn(12, 3, 8, 8), 12, 4)
    prepared = prepare(model, lambda one: run(one, samples.first(2)))
    return ConfiguredInt8(prepared, samples)


def output(network: ConfiguredInt8, how: Int8Configuration) -> np.ndarray:
    batch = network.samples.batches[0].numpy()
    return open_session(network.build(how), ["output"], 1)({"input": batch})["output"]


@pytest.mark.parametrize(
    ("scheme", "clipping", "granularity"), [*product(SCHEMES, ("none", "kl"), ("tensor", "channel"))]
)
def test_each_is_near_the_float_network_in_integers(
    network: ConfiguredInt8, scheme: str, clipping: str, granularity: str
) -> None:
    batch = network.samples.batches[0]
    wanted = network.prepared.model(batch).detach().numpy()
    for count, edges in ((1, "none"), (None, "edges")):
        how = Int8Configuration(count, scheme, clipping, granularity, edges)
        found = output(network, how)
        assert np.abs(found - wanted).max() < (0.5 if clipping == "kl" or count == 1 else 0.15) * np.abs(wanted).max()
        assert kernels_of(network.build(how)) == ((3, 0) if edges == "none" else (1, 2))


def test_the_same_bytes_again(network: ConfiguredInt8) -> None:
    how = Int8Configuration(4, "symmetric", "kl", "tensor")
    first = network.build(how)
    network.build(Int8Configuration())
    assert network.build(how) == first != network.build(Int8Configuration(4, "symmetric", "kl", "channel"))


def test_values_between_nodes_have_the_schemes_zero_points(network: ConfiguredInt8) -> None:
    def zero_points(scheme: str) -> set[int]:
        graph = onnx.load_from_string(network.build(Int8Configuration(None, scheme))).graph
        held = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
        return {int(held[node.input[2]]) for node in graph.node if node.op_type == "QuantizeLinear"}

    assert zero_points("symmetric") == zero_points("power-of-two") == {128}
    assert zero_points("symmetric-uint8") == {0, 128}
    assert 0 in zero_points("asymmetric")


def test_a_relu_between_symmetric_values_is_computed_once(network: ConfiguredInt8) -> None:
    """Levels before and behind it are the same, so that rounding twice is rounding once."""
    graph = onnx.load_from_string(network.build(Int8Configuration(None, "symmetric"))).graph
    held = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    writer = {value: node for node in graph.node for value in node.output}
    readers = {value: node for node in graph.node for value in node.input}
    relus = [node for node in graph.node if node.op_type == "Relu"]
    assert relus
    for node in relus:
        before, behind = writer[node.input[0]], readers[node.output[0]]
        assert before.op_type == "DequantizeLinear" and behind.op_type == "QuantizeLinear"
        assert held[before.input[1]] == held[behind.input[1]]


@pytest.mark.parametrize(
    "given",
    [{"calibration": 0}, {"scheme": "odd"}, {"clipping": "some"}, {"granularity": "row"}, {"float_layers": "all"}],
)
def test_what_is_no_configuration(given: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Int8Configuration(**given)  # pyright: ignore[reportArgumentType]
