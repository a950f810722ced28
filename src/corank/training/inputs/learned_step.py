"""Inputs with a learned step (LSQ, arXiv 1902.08153)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from corank.training.inputs.base import InputStart, InputTraining, SteppedInputs, TrainableInputs

__all__ = ["LearnedStepInputs"]


@dataclass(frozen=True)
class LearnedStepInputs(InputTraining):
    """One step a layer, its start times ``exp`` of what trains; which code stands for zero stays.

    Args:
        bits: 2 to 8.
    """

    bits: int = 4

    def start(self, given: InputStart) -> TrainableInputs:
        return _Learned(given.codes)


class _Learned(SteppedInputs):
    def forward(self, inputs: Tensor) -> Tensor:
        return self.now()(inputs)
