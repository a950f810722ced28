"""Histograms of the values between an ONNX graph's nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto, helper

from corank.export.check import Arrays
from corank.export.int8_schemes import Profile
from corank.export.onnx_session import open_session

__all__ = ["profiles"]

_BINS = 1000  # Glow's


def profiles(
    model: ModelProto, batches: Callable[[], Iterable[Arrays]], operators: Sequence[str]
) -> dict[str, Profile]:
    """What every value that a node of these operators reads or writes was, over all batches.

    Args:
        model: with shapes inferred; not changed.
        batches: gives the inputs by name; asked for twice, for the ends and for the histograms between them.
        operators: by name.
    """
    shown, names = _showing(model, operators)
    inputs = [value.name for value in model.graph.input if value.name in names]
    session = open_session(shown.SerializeToString(), [name for name in names if name not in inputs])
    ends: dict[str, tuple[float, float]] = {}
    for name, value in _seen(batches(), session, inputs):
        low, high = ends.get(name, (np.inf, -np.inf))
        ends[name] = (min(low, float(value.min())), max(high, float(value.max())))
    counts = {name: torch.zeros(_BINS, dtype=torch.float64) for name in ends}
    for name, value in _seen(batches(), session, inputs):
        top = max(-ends[name][0], ends[name][1])
        if top > 0:
            counts[name] += torch.from_numpy(value).abs().histc(_BINS, 0.0, top).double()
    return {name: Profile(*ends[name], counts[name].numpy()) for name in ends}


def _seen(
    batches: Iterable[Arrays], session: Callable[[Arrays], Arrays], inputs: Sequence[str]
) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Every value of every batch, by name: what nodes give, and the inputs that they read."""
    for batch in batches:
        yield from session(batch).items()
        yield from ((name, batch[name]) for name in inputs)


def _showing(model: ModelProto, operators: Sequence[str]) -> tuple[ModelProto, list[str]]:
    """The graph with all those float values among its outputs, and their names."""
    shown = type(model)()
    shown.CopyFrom(model)
    constant = {held.name for held in model.graph.initializer}
    kinds = {one.name: one.type.tensor_type.elem_type for one in (*model.graph.value_info, *model.graph.output)}
    kinds |= {one.name: one.type.tensor_type.elem_type for one in model.graph.input}
    read = dict.fromkeys(
        value
        for node in model.graph.node
        if node.op_type in operators
        for value in (*node.input, *node.output)
        if value and value not in constant and kinds.get(value) == 1  # float32
    )
    given = {one.name for one in (*model.graph.output, *model.graph.input)}
    shown.graph.output.extend(helper.make_tensor_value_info(name, 1, None) for name in read if name not in given)
    return shown, list(read)
