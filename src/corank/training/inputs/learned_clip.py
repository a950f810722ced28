"""Inputs clipped where it is learned (PACT, arXiv 1805.06085)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from corank.layers import InputQuantizer
from corank.layers.within import ends_of, within
from corank.training.inputs.base import InputStart, InputTraining, SteppedInputs, TrainableInputs

__all__ = ["LearnedClipInputs"]


@dataclass(frozen=True)
class LearnedClipInputs(InputTraining):
    """``y = clip(x, 0, alpha)``, rounded to multiples of ``alpha / (2^bits - 1)``.

    The gradient of ``alpha`` is that of the clip alone: 1 for ``x >= alpha``, 0 below, no error of rounding; that of
    ``x`` is 1 from 0 to below ``alpha``. ``alpha`` is its start times ``exp`` of what trains, and so positive. Where
    inputs are negative, too, which the paper has not, both ends are whole multiples of the one step and move with it:
    each clipped input has the gradient of its own end.

    Args:
        bits: 2 to 8.
    """

    bits: int = 4

    def start(self, given: InputStart) -> TrainableInputs:
        return _Clipped(given.codes)


class _Clipped(SteppedInputs):
    def forward(self, inputs: Tensor) -> Tensor:
        now = self.now()
        if torch.is_grad_enabled() and (inputs.requires_grad or now.step.requires_grad):
            return _Clip.apply(inputs, now.step, now)
        return now(inputs)


class _Clip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, step: Tensor, quantizer: InputQuantizer) -> Tensor:
        values = quantizer(inputs)  # gradients are off in here
        ctx.save_for_backward(inputs, step, values)  # the layer that reads the values keeps them, too
        ctx.range = (-quantizer.offset, 2**quantizer.bits - 1 - quantizer.offset)
        return values

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (inputs, step, values), gradient = ctx.saved_tensors, grad_outputs[0]
        passed = within(gradient, inputs, ends_of(step, *ctx.range), closed=(True, False))
        moved = None
        if ctx.needs_input_grad[1]:
            # One number over all inputs: in half precision the sum would stop growing.
            moved = (gradient - passed).mul_(values.detach()).sum(dtype=torch.float32) / step
        return passed, moved, None
