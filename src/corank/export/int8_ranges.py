"""Ranges of the values between an ONNX graph's nodes, one for each value."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

from corank.export.check import Arrays
from corank.export.graph import weight_readers
from corank.layers import BinaryInputs, CodedLayer

__all__ = ["Range", "extremes", "of_layers", "shared"]

Range = tuple[float, float]

_TAKES = ("Concat", "MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split")
"""Operators whose outputs are values of their inputs."""


class _Reader(CalibrationDataReader):
    def __init__(self, batches: Iterable[Arrays]) -> None:
        self._batches: Iterator[Arrays] = iter(batches)

    def get_next(self) -> dict[str, np.ndarray]:
        """The next batch; empty at the end."""
        return dict(next(self._batches, {}))


def extremes(model: ModelProto, batches: Iterable[Arrays], operators: Iterable[str]) -> dict[str, Range]:
    """The least and the largest number of every value that a node of these operators reads or writes.

    Args:
        model: with shapes inferred; not changed.
        batches: inputs by name.
        operators: by name.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.onnx"
        onnx.save(model, str(path))
        # The calibrator works on files; its augmented graph goes with the folder.
        calibrator = create_calibrator(
            path, list(operators), str(Path(folder) / "measuring.onnx"), calibrate_method=CalibrationMethod.MinMax
        )
        calibrator.collect_data(_Reader(batches))
        found = calibrator.compute_data()
    ends = {name: tuple(float(np.min(end)) for end in found[name].range_value) for name in found}
    return {name: (low, high) for name, (low, high) in ends.items()}


def of_layers(graph: GraphProto, layers: Mapping[str, CodedLayer]) -> dict[str, Range]:
    """The ranges that layers round their inputs to, by the value they read: the widest where they differ.

    A value that something else reads as well has none.
    """
    found: dict[str, Range] = {}
    # Readers not accounted for: of a value where any are left, someone needs more than the layers' range.
    readers = Counter(value for node in graph.node for value in node.input)
    for name, layer in layers.items():
        rounding = layer.input_quantizer()
        assert not isinstance(rounding, BinaryInputs)  # made_int8 refuses such layers
        for node in weight_readers(graph, name):
            value = node.input[0]
            readers[value] -= 1
            if rounding is not None:
                step = float(rounding.step)
                # From zero on: both ends of a range reach it in any case.
                low, high = found.get(value, (0.0, 0.0))
                top = 2**rounding.bits - 1 - rounding.offset
                found[value] = (min(low, -rounding.offset * step), max(high, top * step))
            else:
                readers[value] += 1
    return {value: ends for value, ends in found.items() if readers[value] == 0}


def shared(graph: GraphProto, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """The ranges, each that of its reader where that one only picks or moves numbers.

    Such a node then copies codes; a concatenation of other steps would round each of them a second time. A value that
    several nodes read is only widened. Below a ``Relu`` or ``Clip``, which the quantizer drops since the range clips in
    its place, the range stays within what that node gives.
    """
    found = dict(ranges)
    readers = Counter(value for node in graph.node for value in node.input)
    kinds = {value: node.op_type for node in graph.node for value in node.output}
    # From the outputs on, so that a range goes up through a whole chain of such nodes.
    for node in reversed(graph.node):
        if node.op_type not in _TAKES or node.output[0] not in found:
            continue
        for value in node.input if node.op_type == "Concat" else node.input[:1]:
            # The ends of a Clip are constants elsewhere in the graph: its own range is kept.
            if value in found and kinds.get(value) != "Clip":
                low, high = found[node.output[0]]
                # Other readers were measured with the value's own range, which must not shrink for one of them.
                if readers[value] > 1:
                    low, high = min(low, found[value][0]), max(high, found[value][1])
                found[value] = (max(low, 0.0) if kinds.get(value) == "Relu" else low, high)
    return found
