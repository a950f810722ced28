"""Inputs with a learned step (LSQ, arXiv 1902.08153), and with a learned shift of each channel (OFQ, 2302.02210)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from corank.layers import InputQuantizer
from corank.layers.half import half
from corank.training.inputs.base import InputStart, InputTraining, SteppedInputs, TrainableInputs

__all__ = ["LearnedStepInputs"]


@dataclass(frozen=True)
class LearnedStepInputs(InputTraining):
    """One step a layer, its start times ``exp`` of what trains; which code stands for zero stays.

    Args:
        bits: 2 to 8.
        shift: whether each channel has a learned shift, from zero on, that is taken off before rounding: minus the
            first offset of OFQ's ``Q(x + b1) + b2``. The second is the same for all tokens behind a linear layer, whose
            bias learns it. 2 bytes a channel.
    """

    bits: int = 4
    shift: bool = False

    def start(self, given: InputStart) -> TrainableInputs:
        return _Shifted(given) if self.shift else _Learned(given.codes)


class _Learned(SteppedInputs):
    def forward(self, inputs: Tensor) -> Tensor:
        return self.now()(inputs)


class _Shifted(_Learned):
    """Shifts train in units of the step, as inputs differ by magnitudes from layer to layer."""

    def __init__(self, given: InputStart) -> None:
        super().__init__(given.codes)
        step = given.codes.step
        self.moved = nn.Parameter(torch.zeros(given.shifts, dtype=step.dtype, device=step.device))

    def now(self) -> InputQuantizer:
        return replace(super().now(), shift=half(self.get_buffer("step") * self.moved))

    def quantizer(self) -> InputQuantizer:
        now = super().quantizer()
        assert now.shift is not None
        return replace(now, shift=now.shift.detach())
