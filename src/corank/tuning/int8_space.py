"""Quantune's space (arXiv 2202.05048): 96 ways to int8, each built and scored in ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from corank.export.example import named_inputs
from corank.export.int8_configured import ConfiguredInt8, Int8Configuration
from corank.export.int8_schemes import SCHEMES
from corank.export.onnx_session import open_session
from corank.tuning.measuring import Made
from corank.tuning.space import Choice, Configuration, Space

__all__ = ["INT8", "Int8Maker", "SessionModel"]

INT8 = Space(
    "int8",
    (
        Choice("calibration", (1, 100, None)),
        Choice("scheme", SCHEMES),
        Choice("clipping", ("none", "kl")),
        Choice("granularity", ("tensor", "channel")),
        Choice("float_layers", ("none", "edges")),
    ),
)
"""The calibration set is one image, a hundred or all (the paper's: one, 1,000, 10,000)."""


@dataclass(frozen=True)
class Int8Maker:
    """Builds a configuration for ONNX Runtime; calibration sets are among what is chosen, so shares play no part.

    Attributes:
        network: traced once for all.
    """

    network: ConfiguredInt8

    def __call__(self, configuration: Configuration, share: float) -> Made:
        file = self.network.build(Int8Configuration(**configuration))  # pyright: ignore[reportArgumentType]
        return Made(file, SessionModel(file, [value.name for value in self.network.graph.graph.output]))


class SessionModel(nn.Module):
    """An ONNX file as a module on the CPU, one thread.

    Args:
        file: its bytes.
        outputs: names of what it gives.
    """

    def __init__(self, file: bytes, outputs: list[str]) -> None:
        super().__init__()
        self._session, self._outputs = open_session(file, outputs, threads=1), outputs

    def forward(self, *args: Any, **named: Any) -> Tensor | dict[str, Tensor]:
        """What the graph gives: a tensor for one output, else a mapping."""
        inputs = named_inputs(args[0] if args else named)
        found = self._session({name: value.numpy() for name, value in inputs.items()})
        given = {name: torch.from_numpy(value) for name, value in found.items()}
        return given[self._outputs[0]] if len(given) == 1 else given
