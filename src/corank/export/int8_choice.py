"""Which layers stay in float: those that int8 harms most for what they cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from onnx import GraphProto, NodeProto

from corank.export.graph import weight_readers
from corank.export.int8_errors import LayerError

__all__ = ["harmed_layers"]

_WORTH = 2.0  # a float operation takes about three times as long as one in int8
_HARMLESS = 1e-3  # nats, or relative squared error, of all layers together
_PASSES = ("Relu", "Clip", "LeakyRelu", "MaxPool", "Flatten", "Reshape", "Squeeze", "Identity")
"""Operators of one input that give way to float."""

Names = frozenset[str]


def harmed_layers(
    graph: GraphProto, errors: Mapping[str, LayerError], share: float, kept: Collection[str] = ()
) -> Names:
    """The layers to leave in float.

    What rounding an input does is only undone where all layers that write or read it are in float, so a layer comes
    with those. Taken in turn are the layers that undo most harm for their operations, while their share of the harm
    that is left is at least twice their share of all operations.

    Args:
        graph: of :func:`corank.export.graph.float_graph`.
        errors: of each layer.
        share: of all operations that may stay in float; 0 leaves none but ``kept``.
        kept: layers to leave in float anyway.
    """
    before = _before(graph, errors)
    total = max(1, sum(error.operations for error in errors.values()))
    harm = sum(error.harm for error in errors.values())
    chosen = frozenset(kept)
    # What is in float anyway does not use up the share.
    allowed = share * total + _operations(chosen, errors)
    while share > 0:
        undone = _undone(before, errors, chosen)
        # Gains are measured against what is left, which near zero would make any layer seem worth it.
        if harm - undone <= _HARMLESS:
            break
        best, worth = chosen, _WORTH
        for name, others in before.items():
            # With its neighbours, or nothing would be undone: one layer in int8 beside it keeps the value rounded.
            move = chosen | others | {name}
            cost = (_operations(move, errors) - _operations(chosen, errors)) / total
            # Without cost nothing new would be in float, and there is nothing to divide by.
            if cost > 0 and _operations(move, errors) <= allowed:
                # Of the whole choice and not of the layer alone: a move may complete the neighbours of others.
                gain = (_undone(before, errors, move) - undone) / (harm - undone)
                best, worth = max((best, worth), (move, gain / cost), key=lambda one: one[1])
        if best == chosen:
            break
        chosen = best
    return chosen


def _operations(names: Collection[str], errors: Mapping[str, LayerError]) -> int:
    return sum(errors[name].operations for name in names if name in errors)


def _undone(before: Mapping[str, Names], errors: Mapping[str, LayerError], chosen: Names) -> float:
    # A layer undoes its harm only once all that share its input are chosen too.
    return sum(errors[name].harm for name in chosen & before.keys() if before[name] <= chosen)


def _before(graph: GraphProto, errors: Mapping[str, LayerError]) -> dict[str, Names]:
    """For each layer those that write its input, and the others that read the same.

    A layer whose input something else writes or reads as well is left out: this input is rounded in any case.
    """
    links = _Links(graph, errors)
    found = {}
    for name in errors:
        groups = [links.around(node.input[0]) for node in weight_readers(graph, name)]
        known = [one for one in groups if one is not None]
        if len(known) == len(groups):
            found[name] = frozenset().union(*known)
    return found


class _Links:
    """Which layers write and read a value, through operators that give way."""

    def __init__(self, graph: GraphProto, layers: Collection[str]) -> None:
        self._owner = {node.output[0]: name for name in layers for node in weight_readers(graph, name)}
        self._writer = {value: node for node in graph.node for value in node.output}
        self._read: defaultdict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for value in node.input:
                self._read[value].append(node)
        self._inputs = {value.name for value in graph.input}
        self._outputs = {value.name for value in graph.output}

    def around(self, value: str) -> Names | None:
        """The layers that write or read the value; None where something else does."""
        # Up to what really computes the value; what gives way has the same precision on both its sides.
        while value not in self._owner and value in self._writer and self._writer[value].op_type in _PASSES:
            value = self._writer[value].input[0]
        if value not in self._owner and value not in self._inputs:
            return None
        readers = self._readers(value)
        # An input of the graph is written by no layer.
        return readers if readers is None or value in self._inputs else readers | {self._owner[value]}

    def _readers(self, value: str) -> Names | None:
        """The layers that read a value, through operators that give way; None where something else does."""
        found: Names = frozenset()
        for node in self._read[value]:
            result = node.output[0]
            known = result in self._owner
            more = frozenset((self._owner[result],)) if known else None
            if not known and node.op_type in _PASSES:
                more = self._readers(result)
            if more is None:
                return None
            found |= more
        # Who reads the graph's outputs is not known.
        return None if value in self._outputs else found
