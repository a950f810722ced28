"""Inputs of one bit: their sign, with a learned shift for each channel (RSign of ReActNet, arXiv 2003.03488)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from corank.errors import ConfigError
from corank.layers import BinaryInputs
from corank.layers.binary_inputs import GRADIENTS
from corank.training.inputs.base import InputStart, InputTraining, TrainableInputs
from corank.training.weights.base import straight_through

__all__ = ["SignInputs"]

_SMALLEST, _LARGEST = 2.0**-24, 65504.0  # of fp16


@dataclass(frozen=True)
class SignInputs(InputTraining):
    """``step * sign(x - shift)``, the step and the shift of each channel learned.

    The step starts at the mean magnitude and is its start times ``exp`` of what trains, so it stays positive. A shift
    starts at zero, or at the mean of inputs that are never negative. Both are always what fp16 holds of them, so that
    training computes what ships.

    Args:
        bits: 1.
        shift: whether shifts are learned and stored, 2 bytes a channel.
        gradient: of an input, in units of the step: "polynomial", ``2 - 2 |u|`` (Bi-Real Net, arXiv 1808.00278), or
            "clip", 1; zero beyond one step.
        unit: the step is 1 and stays so, and shifts start at zero, for networks whose norms come to that by themselves
            (BinaryViT, arXiv 2306.16678).
    """

    bits: int = 1
    shift: bool = True
    gradient: str = "polynomial"
    unit: bool = False

    def __post_init__(self) -> None:
        if type(self.bits) is not int or self.bits != 1:
            raise ConfigError(f"bits={self.bits!r}: signs have 1 bit; LearnedStepInputs(bits=4) trains 2 to 8")
        if self.gradient not in GRADIENTS:
            raise ConfigError(f"gradient={self.gradient!r}: one of {', '.join(map(repr, GRADIENTS))}")

    def start(self, given: InputStart) -> TrainableInputs:
        found = given.quantizer
        if self.unit:
            return _Signs(self, BinaryInputs(torch.ones_like(found.step)), given)
        if not isinstance(found, BinaryInputs):
            size = torch.full_like(found.step, given.mean_size).clamp(_SMALLEST, _LARGEST)
            # Of inputs that are never negative the mean magnitude is the mean; all would have one sign above zero.
            found = BinaryInputs(size, None if found.signed else size)
        return _Signs(self, found, given)


class _Signs(TrainableInputs):
    """See :class:`SignInputs`."""

    def __init__(self, how: SignInputs, found: BinaryInputs, given: InputStart) -> None:
        super().__init__()
        self._gradient = how.gradient
        self.growth = None if how.unit else nn.Parameter(torch.zeros_like(found.step))
        self.register_buffer("step", found.step.clone())
        start = found.shift
        if how.shift:
            start = torch.zeros_like(found.step) if start is None else start
            start = start.expand(given.shifts).contiguous()
        self.register_buffer("shift", None if start is None else start.clone())
        # In units of the step, as inputs differ by magnitudes from layer to layer.
        self.moved = nn.Parameter(torch.zeros_like(start)) if how.shift and start is not None else None

    def forward(self, inputs: Tensor) -> Tensor:
        return self._now()(inputs)

    def quantizer(self) -> BinaryInputs:
        with torch.no_grad():
            return self._now()

    def _now(self) -> BinaryInputs:
        step = self.get_buffer("step")
        shift = self._buffers["shift"]
        if shift is not None:
            shift = _half(shift if self.moved is None else shift + step * self.moved)
        if self.growth is not None:
            step = _half((step * self.growth.exp()).clamp(min=_SMALLEST))
        return BinaryInputs(step, shift, self._gradient)


def _half(value: Tensor) -> Tensor:
    """As fp16 holds it; the gradient passes straight through."""
    with torch.no_grad():
        stored = value.clamp(-_LARGEST, _LARGEST).to(torch.float16).float()
    return straight_through(stored, value)
