"""Inputs with a learned step (LSQ, arXiv 1902.08153)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from corank.errors import ConfigError
from corank.layers import InputQuantizer
from corank.training.inputs.base import InputStart, InputTraining, TrainableInputs

__all__ = ["LearnedStepInputs"]


@dataclass(frozen=True)
class LearnedStepInputs(InputTraining):
    """One step a layer, its start times ``exp`` of what trains; which code stands for zero stays.

    Args:
        bits: 2 to 8.
    """

    bits: int = 4

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 2 <= self.bits <= 8:
            raise ConfigError(f"bits={self.bits!r}: of inputs, 2 to 8, e.g. LearnedStepInputs(4)")

    def start(self, given: InputStart) -> TrainableInputs:
        return _Learned(given.codes)


class _Learned(TrainableInputs):
    def __init__(self, quantizer: InputQuantizer) -> None:
        super().__init__()
        self._quantizer = quantizer
        self.growth = nn.Parameter(torch.zeros_like(quantizer.step))
        self.register_buffer("step", quantizer.step.clone())

    def forward(self, inputs: Tensor) -> Tensor:
        return self._now()(inputs)

    def quantizer(self) -> InputQuantizer:
        return replace(self._now(), step=self._now().step.detach())

    def _now(self) -> InputQuantizer:
        return replace(self._quantizer, step=self.get_buffer("step") * self.growth.exp())
