"""One operand of a product of activations, rounded: what a layer's inputs are to a layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from corank.layers.activation import InputQuantizer
from corank.layers.half import HalfModule, half

__all__ = ["RoundedOperand"]

_LEAST, _MOST = 2.0**-24, 65504.0  # of the positive fp16
_SHARES = torch.logspace(0.0, -2.0, 81, dtype=torch.float32).tolist()  # of the largest magnitude


class RoundedOperand(HalfModule):
    """``step * clip(round((x - shift) / step))``: ``-2^(bits-1)`` to ``2^(bits-1) - 1`` multiples of a step, or 0 to
    ``2^bits - 1`` of what is never negative. One step for all, and a shift of each channel (the last axis).

    The step is learned as in LSQ (arXiv 1902.08153): its start times ``exp`` of what trains. Both are used as fp16
    holds them.

    Args:
        bits: 2 to 8.
        channels: how many have a shift; 0 for none, and no negative numbers.
        like: of its dtype and device the numbers are.
    """

    def __init__(self, bits: int, channels: int, like: Tensor) -> None:
        super().__init__()
        self.bits, self.active = bits, True
        self.offset = 2 ** (bits - 1) if channels else 0
        self.register_buffer("step", torch.ones((), dtype=like.dtype, device=like.device))
        self.register_parameter("growth", None)
        zeros = torch.zeros(channels, dtype=like.dtype, device=like.device)
        self.register_parameter("shift", nn.Parameter(zeros) if channels else None)

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs of any shape, channels last, rounded; as they are while it is not :attr:`active`."""
        return self.quantizer()(inputs) if self.active else inputs

    def quantizer(self) -> InputQuantizer:
        """What rounds, differentiable in what trains."""
        step, growth, shift = self.get_buffer("step"), self._parameters["growth"], self._parameters["shift"]
        if growth is not None:
            step = half((step * growth.exp()).clamp(_LEAST, _MOST))
        return InputQuantizer(self.bits, step, self.offset, None if shift is None else half(shift))

    @torch.no_grad()
    def fit(self, values: Tensor) -> None:
        """Sets the step to that of least squared error, without shifts, and lets it train.

        Args:
            values: a flat float32 sample of the inputs.
        """
        side = 2 ** (self.bits - 1) if self.offset else 2**self.bits - 1
        top = values.abs().amax().clamp(_LEAST * side, _MOST)
        steps = [half((top / side * share).clamp(_LEAST, _MOST)) for share in _SHARES]
        errors = [(InputQuantizer(self.bits, step, self.offset)(values) - values).square().sum() for step in steps]
        step = self.get_buffer("step")
        step.copy_(steps[int(torch.stack(errors).argmin())])
        self.growth = nn.Parameter(torch.zeros_like(step))

    def settle(self) -> None:
        """Keeps step and shifts as they are computed with, and no longer trains."""
        with torch.no_grad():
            self.get_buffer("step").copy_(self.quantizer().step)
        self.growth = None
        super().settle()

    def extra_repr(self) -> str:
        return f"bits={self.bits}, signed={self.offset > 0}"
