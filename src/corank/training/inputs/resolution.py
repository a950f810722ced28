"""Inputs of learned resolution with coarse gradients (BCGD, arXiv 1808.05240)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from corank.training.inputs.base import InputStart, InputTraining, SteppedInputs, TrainableInputs

__all__ = ["ResolutionInputs"]

_SHRINK, _LARGEST = 0.01, 1.0  # of the resolution's gradient: the authors' factor and bound


@dataclass(frozen=True)
class ResolutionInputs(InputTraining):
    """Inputs at whole multiples of a learned resolution, ``0`` to ``L = 2^bits - 1`` of them.

    The coarse gradient of an input is 1 in ``(0, L alpha]`` and 0 outside; that of ``alpha`` is 0 for inputs that are
    not positive, ``2^(bits-1)`` in ``(0, L alpha]``, the mean of the codes there, and ``L`` above. Where inputs are
    signed, the negative side is the mirror image with its own number of codes.

    The authors round up; here an input goes to the closest multiple, as it does in a stored network.

    Args:
        bits: 2 to 8.
    """

    bits: int = 4

    def start(self, given: InputStart) -> TrainableInputs:
        return _Resolution(given.codes)


class _Resolution(SteppedInputs):
    """The resolution is its start times ``exp`` of what trains, and so positive."""

    def forward(self, inputs: Tensor) -> Tensor:
        now = self.now()
        if not torch.is_grad_enabled():
            return now(inputs)
        high = 2**now.bits - 1 - now.offset
        return _Coarse.apply(inputs, now.step, -now.offset, high)


class _Coarse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, step: Tensor, low: int, high: int) -> Tensor:
        ctx.save_for_backward(inputs, step)
        ctx.range = (low, high)
        return (inputs / step).round_().clamp_(low, high).mul_(step)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        (inputs, step), (low, high) = ctx.saved_tensors, ctx.range
        gradient, scaled = grad_outputs[0], inputs / step
        up, down = scaled > 0, scaled < 0
        inside = (up & (scaled <= high)) | (down & (scaled >= low))
        moved = None
        if ctx.needs_input_grad[1]:
            mean = up.float() * ((high + 1) / 2) + down.float() * ((low - 1) / 2)
            coarse = torch.where(inside, mean, up.float() * high + down.float() * low)
            # One number over all inputs: in half precision the sum would stop growing.
            moved = (gradient * coarse).sum(dtype=torch.float32).mul(_SHRINK).clamp(-_LARGEST, _LARGEST)
        return gradient * inside, moved, None, None
