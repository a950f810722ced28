"""Inputs at one bit: the sign of what a layer is fed, less a shift of each channel (RSign, arXiv 2003.03488)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from corank.errors import ConfigError

__all__ = ["GRADIENTS", "BinaryInputs", "fit_binary"]

GRADIENTS = ("polynomial", "clip")
_SMALLEST_STEP, _LARGEST = 2.0**-24, 65504.0  # of fp16


@dataclass(frozen=True)
class BinaryInputs:
    """Rounds inputs to ``step * sign(x - shift)``, with ``sign(0) = +1``.

    Differentiable. With ``u = (x - shift) / step`` and ``|u| <= 1`` the gradient of an input is ``2 - 2 |u|`` (Bi-Real
    Net, arXiv 1808.00278, equation 6) or 1 ("clip"), and zero beyond; that of a shift is its negative, summed over the
    channel; that of the step is exact: the sign.

    Args:
        step: a scalar float32 above zero.
        shift: float32, one number for each channel in a shape that broadcasts over the inputs, such as ``(C, 1, 1)``
            for images and ``(C,)`` for tokens, or one number for all; None for zero.
        gradient: "polynomial" or "clip"; not stored.
    """

    step: Tensor
    shift: Tensor | None = None
    gradient: str = "polynomial"
    bits: ClassVar[int] = 1
    signed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.gradient not in GRADIENTS:
            raise ConfigError(f"gradient={self.gradient!r}: one of {', '.join(map(repr, GRADIENTS))}")

    def __call__(self, inputs: Tensor) -> Tensor:
        """The inputs, each as minus or plus the step, in their own dtype."""
        shift = inputs.new_zeros(()) if self.shift is None else self.shift
        trains = inputs.requires_grad or self.step.requires_grad or shift.requires_grad
        if torch.is_grad_enabled() and trains:
            return _Sign.apply(inputs, self.step, shift, self.gradient)
        return _signs(inputs, self.step, shift)

    @property
    def shifts(self) -> int:
        """How many shifts are stored."""
        return 0 if self.shift is None else self.shift.numel()

    def tensors(self) -> dict[str, Tensor]:
        """What is stored, fp16."""
        found = {"input_step": self.step.to(torch.float16)}
        if self.shift is not None:
            found["input_shift"] = self.shift.reshape(-1).to(torch.float16)
        return found


def fit_binary(values: Tensor, low: float) -> BinaryInputs:
    """A start for inputs of one bit: the step is the mean magnitude, as fp16 stores it.

    Args:
        values: a flat sample of the inputs.
        low: the least of all inputs. Where none is negative, zero would give all of them one sign: they are then
            told apart at their mean, and the step is their mean distance from it.
    """
    values = values.detach().float()
    shift = values.mean().clamp(-_LARGEST, _LARGEST).to(torch.float16).float() if low >= 0 else None
    size = (values if shift is None else values - shift).abs().mean()
    return BinaryInputs(size.clamp(_SMALLEST_STEP, _LARGEST).to(torch.float16).float(), shift)


def _signs(inputs: Tensor, step: Tensor, shift: Tensor) -> Tensor:
    # x >= shift is sign(x - shift) with sign(0) = +1, without rounding the difference.
    above, high = inputs >= shift, step.to(inputs.dtype)
    if torch.compiler.is_compiling():
        return torch.where(above, high, -high)
    return above.to(inputs.dtype).mul_(2).sub_(1).mul_(high)  # as exact; where() decides number by number


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, step: Tensor, shift: Tensor, gradient: str) -> Tensor:
        values = _signs(inputs, step, shift)
        ctx.save_for_backward(inputs, step, shift, values)  # the layer that reads the values keeps them, too
        ctx.gradient = gradient
        return values

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        (inputs, step, shift, values), given = ctx.saved_tensors, grad_outputs[0]
        away = (inputs - shift).div_(step).abs_()
        slope = away.mul_(-2).add_(2).relu_() if ctx.gradient == "polynomial" else away <= 1
        through = given * slope
        moved = shifted = None
        if ctx.needs_input_grad[1]:
            # One number over all inputs: in half precision the sum would stop growing.
            moved = (given * values.detach()).sum(dtype=torch.float32) / step
        if ctx.needs_input_grad[2]:
            shifted = -through.to(shift.dtype).sum_to_size(shift.shape)
        return through.to(given.dtype), moved, shifted, None
