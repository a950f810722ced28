"""A float network in int8 as a configuration says, without any repair: Quantune's choices (arXiv 2202.05048)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx
from onnx import GraphProto, ModelProto
from torch import nn

from corank.calibration import Samples
from corank.errors import ConfigError
from corank.export.check import Arrays
from corank.export.example import named_inputs
from corank.export.graph import float_graph
from corank.export.int8_profile import profiles
from corank.export.int8_qdq import FOLLOWING, WEIGHTED, Integers, fold_transposes, has_kernel, integer_graph, name_nodes
from corank.export.int8_ranges import Range, shared
from corank.export.int8_schemes import SCHEMES, Profile, clipped, rounded_weight, scheme_range
from corank.export.int8_weights import Int8Weight
from corank.layers.prepare import PreparedModel

__all__ = ["ConfiguredInt8", "Int8Configuration"]

_OFFERED = {
    "scheme": SCHEMES,
    "clipping": ("none", "kl"),
    "granularity": ("tensor", "channel"),
    "float_layers": ("none", "edges"),
}
_REACHING = ("symmetric", "power-of-two")  # schemes whose ranges reach below zero although no value does


@dataclass(frozen=True)
class Int8Configuration:
    """One way to int8.

    Attributes:
        calibration: samples that ranges are taken from, of those there are; None for all.
        scheme: of :data:`~corank.export.int8_schemes.SCHEMES`.
        clipping: "none" for the whole range, "kl" for that of least divergence.
        granularity: of weights' steps, "tensor" or "channel".
        float_layers: "none", or "edges": the first and the last layer stay in float. (Which layers the paper keeps in
            float could not be checked.)
    """

    calibration: int | None = None
    scheme: str = "asymmetric"
    clipping: str = "none"
    granularity: str = "channel"
    float_layers: str = "none"

    def __post_init__(self) -> None:
        count = self.calibration
        if count is not None and (type(count) is not int or count < 1):
            raise ConfigError(f"calibration={count!r}: samples, from 1 on, or None for all")
        for name, allowed in _OFFERED.items():
            value = self.__dict__[name]
            if value not in allowed:
                raise ConfigError(f"{name}={value!r}: one of {', '.join(allowed)}")


@dataclass
class ConfiguredInt8:
    """A network traced once, which any configuration makes an int8 graph of; what they share is measured once.

    Args:
        prepared: of :func:`corank.layers.prepare`, float32, on the CPU.
        samples: to calibrate on.
        seven_bits: weights from -64 to 64, for processors whose sums would overflow.
    """

    prepared: PreparedModel
    samples: Samples
    seven_bits: bool = False
    _profiles: dict[int, dict[str, Profile]] = field(default_factory=dict, init=False, repr=False)
    _ranges: dict[tuple[int, str], dict[str, Range]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        kinds = (nn.Linear, nn.modules.conv._ConvNd)
        layers = {name: one for name, one in self.prepared.targets.items() if isinstance(one, kinds)}
        graph = float_graph(self.prepared.model, self.samples.first(1), layers=list(layers))
        name_nodes(graph.graph)
        fold_transposes(graph.graph, layers)
        self._layers = {name: layer for name, layer in layers.items() if has_kernel(graph.graph, name, layer)}
        self.graph: ModelProto = onnx.shape_inference.infer_shapes(graph)

    def build(self, how: Int8Configuration) -> bytes:
        """The graph as the bytes of an ONNX file, which depend on nothing but network, samples and configuration."""
        graph = ModelProto()
        graph.CopyFrom(self.graph)
        kept = [name for name in self._layers if how.float_layers == "edges" and name in self.prepared.edges]
        ranges = self._grid(graph.graph, how)
        per_channel, largest = how.granularity == "channel", 64 if self.seven_bits else 127
        weights = {
            name: Int8Weight(*rounded_weight(layer.weight.float(), how.scheme, per_channel, largest))
            for name, layer in self._layers.items()
            if name not in kept
        }
        told = Integers(self.seven_bits, keep_relus=how.scheme in _REACHING)
        return integer_graph(graph, ranges, weights, told, kept).SerializeToString(deterministic=True)

    def _grid(self, graph: GraphProto, how: Int8Configuration) -> dict[str, Range]:
        """The range of each value as the scheme has it."""
        found = {name: scheme_range(how.scheme, *ends) for name, ends in self._measured(how).items()}
        if how.scheme in _REACHING:
            _see_through(graph, found)
        return found

    def _measured(self, how: Int8Configuration) -> dict[str, Range]:
        """The ranges before any scheme, each that of its reader where that one only moves numbers."""
        count = min(how.calibration or len(self.samples), len(self.samples))
        key = (count, how.clipping)
        if key not in self._ranges:
            if count not in self._profiles:
                self._profiles[count] = profiles(self.graph, lambda: self._batches(count), (*WEIGHTED, *FOLLOWING))
            seen = self._profiles[count]
            plain = {name: (one.low, one.high) for name, one in seen.items()}
            ranges = plain if how.clipping == "none" else {name: clipped(one) for name, one in seen.items()}
            self._ranges[key] = shared(self.graph.graph, ranges)
        return self._ranges[key]

    def _batches(self, count: int) -> Iterator[Arrays]:
        for batch in self.samples.take(count).batches:
            yield {name: value.numpy() for name, value in named_inputs(batch).items()}


def _see_through(graph: GraphProto, ranges: dict[str, Range]) -> None:
    """Gives what only a ``Relu`` or ``Clip`` reads that one's range: rounded to the same levels before it as behind it,
    a layer keeps its integer kernel, and nothing is rounded twice."""
    read = [value for node in graph.node for value in node.input]
    for node in graph.node:
        if node.op_type in ("Relu", "Clip") and node.output[0] in ranges and read.count(node.input[0]) == 1:
            ranges[node.input[0]] = ranges[node.output[0]]
