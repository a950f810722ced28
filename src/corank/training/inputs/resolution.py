"""Inputs of learned resolution with coarse gradients (BCGD, arXiv 1808.05240)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from corank.layers.within import ends_of, within
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
        (inputs, step), gradient = ctx.saved_tensors, grad_outputs[0]
        sides = [_of_side(gradient, inputs, step, most) for most in ctx.range if most]
        (passed, moved), *others = sides
        for other in others:
            passed, moved = passed + other[0], moved + other[1]
        return passed, moved.mul(_SHRINK).clamp(-_LARGEST, _LARGEST), None, None


def _of_side(gradient: Tensor, inputs: Tensor, step: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The coarse gradients of the inputs of one sign, whose outermost code is ``most``, and theirs of ``alpha``."""
    up = most > 0
    near, far = ((0, most), (most, math.inf)) if up else ((most, 0), (-math.inf, most))
    inside = within(gradient, inputs, ends_of(step, *near), closed=(not up, up))
    beyond = within(gradient, inputs, ends_of(step, *far), closed=(False, False))
    mean = (most + (1 if up else -1)) / 2
    # One number over all inputs: in half precision the sum would stop growing.
    return inside, mean * inside.sum(dtype=torch.float32) + most * beyond.sum(dtype=torch.float32)
