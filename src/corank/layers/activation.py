"""Inputs at few bits: one step and one zero point for everything a layer is fed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from corank.layers.binary_inputs import BinaryInputs, fit_binary
from corank.layers.within import ends_of, within
from corank.statistics.input_ranges import threshold

__all__ = ["InputQuantizer", "InputRounder", "fit_inputs"]

_SMALLEST_STEP, _LARGEST_STEP = 2.0**-24, 65504.0  # of the positive fp16
_TURNS = 2  # the ends of the range are searched in turn
_FEW = 8192  # values that the first search looks at
_SHARES = torch.logspace(0.0, -1.5, 61, dtype=torch.float32).tolist()  # of the range of all inputs


@dataclass(frozen=True)
class InputQuantizer:
    """Rounds inputs, less a shift of each channel, to ``2 ** bits`` equally spaced values, ``step * (code - offset)``,
    zero among them.

    Differentiable: the gradient of an input inside the range passes straight through, that of one outside is zero;
    the step's is that of learned step size quantization (arXiv 1902.08153), not scaled; a shift's is the negative of
    its inputs', summed over the channel.

    Args:
        bits: 2 to 8.
        step: a scalar float32 above zero.
        offset: the code that stands for zero, 0 to ``2 ** bits - 1``; 0 for inputs that are never negative.
        shift: float32, one number for each channel in a shape that broadcasts over the inputs, such as ``(C, 1, 1)``
            for images and ``(C,)`` for tokens, or one number for all; None for zero.
    """

    bits: int
    step: Tensor
    offset: int
    shift: Tensor | None = None

    def __call__(self, inputs: Tensor) -> Tensor:
        """The inputs, less their shift, each at the closest of the values, in their own dtype."""
        if self.shift is not None:
            inputs = inputs - self.shift.to(inputs.dtype)
        low, high = -self.offset, 2**self.bits - 1 - self.offset
        # Without gradients the inputs need not be kept for a backward pass.
        if torch.is_grad_enabled() and (inputs.requires_grad or self.step.requires_grad):
            return _StraightThrough.apply(inputs, self.step, low, high)
        return (inputs / self.step).round_().clamp_(low, high).mul_(self.step)

    @property
    def signed(self) -> bool:
        """Whether it holds negative values."""
        return self.offset > 0

    @property
    def shifts(self) -> int:
        """How many shifts are stored."""
        return 0 if self.shift is None else self.shift.numel()

    def tensors(self) -> dict[str, Tensor]:
        """What is stored: the step and the shifts fp16, the offset a whole number."""
        found = {"input_step": self.step.to(torch.float16), "input_offset": torch.tensor(self.offset)}
        if self.shift is not None:
            found["input_shift"] = self.shift.reshape(-1).to(torch.float16)
        return found


InputRounder = InputQuantizer | BinaryInputs
"""What rounds a layer's inputs: to 2 bits and more, or to their sign."""


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, step: Tensor, low: int, high: int) -> Tensor:
        values = (inputs / step).round_().clamp_(low, high).mul_(step)
        ctx.save_for_backward(inputs, step, values)  # the layer that reads the values keeps them, too
        ctx.range = (low, high)
        return values

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        (inputs, step, values), gradient = ctx.saved_tensors, grad_outputs[0]
        ends = ends_of(step, *ctx.range)
        passed = within(gradient, inputs, ends)
        moved = None
        if ctx.needs_input_grad[1]:
            # d(s q) / ds with q = round(x / s): q - x / s inside the range, straight through the rounding, q outside.
            error = (values.detach() - inputs.clamp(*ends)).mul_(passed).addcmul_(gradient - passed, values)
            # One number over all inputs: in half precision the sum would stop growing.
            moved = error.sum(dtype=torch.float32) / step
        return passed, moved, None, None


def fit_inputs(values: Tensor, low: float, high: float, bits: int, range: str = "mse") -> InputRounder:
    """The step and offset, by least squared error or as ``range`` says, the step as fp16 stores it; of 1 bit what
    :func:`~corank.layers.binary_inputs.fit_binary` gives, whatever the range.

    Args:
        values: a flat sample of the inputs.
        low, high: the least and the largest of all inputs; with ``low`` not below zero the offset is 0.
        bits: 1 to 8.
        range: one of :data:`~corank.statistics.input_ranges.RANGES`.

    The widest range tried is that of all inputs, so it is min-max where nothing does better.
    """
    if bits == 1:
        return fit_binary(values, low)
    values = values.detach().float()
    # Zero is always among the values: padding and ReLU give it often, and it must stay exact.
    ends = (min(low, 0.0), max(high, 0.0))
    if range != "mse":
        if range != "minmax":
            # The threshold is one of magnitudes: of a signed grid one half of the values counts.
            side = 2 ** (bits - 1) if ends[0] < 0 < ends[1] else 2**bits
            most = threshold(values, side, mass=range == "kl-mass")
            ends = (max(ends[0], -most), min(ends[1], most))
        return _of_shares(ends, [1.0, 1.0], bits, values.device)

    def error(shares: list[float], of: Tensor) -> float:
        return float((_of_shares(ends, shares, bits, of.device)(of) - of).square().sum())

    # An end at zero stays there, and needs no search.
    both = ends[0] < 0 < ends[1]
    few = values[:: max(1, values.numel() // _FEW)]
    # Pairs of ends on a coarse grid first: the step hangs on both, and one end alone could find nothing better.
    coarse = _SHARES[:: len(_SHARES) // 12] if both else [1.0]
    best = min(([down, up] for down in coarse for up in coarse), key=lambda shares: error(shares, few))
    least = error(best, values)
    for side in (1, 0) * _TURNS if both else (0, 1):
        for share in _SHARES:
            shares = [share if place == side else best[place] for place in (0, 1)]
            found = error(shares, values)
            if found < least:
                least, best = found, shares
    return _of_shares(ends, best, bits, values.device)


def _of_shares(ends: tuple[float, float], shares: list[float], bits: int, device: torch.device) -> InputQuantizer:
    """The quantizer of a range that is a share of each end's."""
    low, high, top = ends[0] * shares[0], ends[1] * shares[1], 2**bits - 1
    step = torch.tensor((high - low) / top, dtype=torch.float32).clamp(_SMALLEST_STEP, _LARGEST_STEP)
    # Rounded before the offset is: zero must lie on the grid of the step that is stored.
    step = step.to(torch.float16).float()
    offset = min(max(round(-low / float(step)), 0), top)
    return InputQuantizer(bits, step.to(device), offset)
