"""One learned step for many shapes of a layer (OQAT, arXiv 2010.04354): the quantizer of a supernet.

``v_hat = s clamp(round(v / s), Qn, Qp)``, with ``Qn = -2^(b-1), Qp = 2^(b-1) - 1`` for weights and ``0, 2^b - 1`` for
inputs that are never negative (the authors'), or the weights' range for signed ones (ours).
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from corank.codecs import ScalarCodebook, Uniform
from corank.errors import ConfigError
from corank.layers import InputQuantizer
from corank.training.inputs.base import SteppedInputs
from corank.training.weights.learned_step import LearnedStepWeight

__all__ = ["WIDTHS", "SharedStepInputs", "SharedStepWeight"]

WIDTHS = range(2, 9)  # bits
_SMALLEST = 2.0**-24


class SharedStepWeight(LearnedStepWeight):
    """A weight of whole multiples of one step, which serves every part of the weight that is taken.

    The step is its start times ``exp`` of what trains, and so positive (the authors take ``|s|``). Its gradient is
    LSQ's times ``1 / sqrt(N Qp)``, ``N`` the numbers of the part that was rounded: parts of different sizes then pull
    alike.

    Args:
        bits: 2 to 8.
        step: a scalar above zero.
    """

    def __init__(self, bits: int, step: Tensor) -> None:
        codec = Uniform(bits, symmetric=True, group=-1, range="mse")
        book = codec.codebook({"scale": step.detach().reshape(1, 1).float()}, 1, 1)
        super().__init__(codec, book)
        self.bits = bits

    @classmethod
    def started(cls, weight: Tensor, bits: int) -> SharedStepWeight:
        """At ``s = 2 mean|v| / sqrt(Qp)``."""
        return cls(bits, _start(weight.detach().abs().mean(), 2 ** (bits - 1) - 1))

    def book(self, weight: Tensor | None = None) -> ScalarCodebook:
        book = super().book()
        return book if weight is None else replace(book, scale=_slowed(book.scale, weight, 2 ** (self.bits - 1) - 1))

    def inherited(self) -> SharedStepWeight:
        """The same with a bit less and a step twice as long: no value moves by more than one step of before.

        Both grids then begin at the same floor, and the coarser one ends one step lower.
        """
        with torch.no_grad():
            return SharedStepWeight(_fewer(self.bits), 2 * self.book().scale)


class SharedStepInputs(SteppedInputs):
    """Inputs of whole multiples of one step, as :class:`SharedStepWeight` has them.

    Args:
        bits: 2 to 8.
        step: a scalar above zero.
        signed: whether half of the values are negative.
    """

    def __init__(self, bits: int, step: Tensor, signed: bool = False) -> None:
        super().__init__(InputQuantizer(bits, step.detach().reshape(()).float(), 2 ** (bits - 1) if signed else 0))

    @classmethod
    def started(cls, mean_size: Tensor, bits: int, signed: bool = False) -> SharedStepInputs:
        """At ``s = 2 mean|v| / sqrt(Qp)``, ``mean_size`` being the mean magnitude of inputs."""
        return cls(bits, _start(mean_size, 2 ** (bits - signed) - 1), signed)

    def forward(self, inputs: Tensor) -> Tensor:
        now = self.now()
        return replace(now, step=_slowed(now.step, inputs, 2**now.bits - 1 - now.offset))(inputs)

    def quantizer(self) -> InputQuantizer:
        """What ships, its step as fp16 stores it."""
        now = super().quantizer()
        return replace(now, step=now.step.clamp(min=_SMALLEST).to(torch.float16).float())

    def inherited(self) -> SharedStepInputs:
        """The same with a bit less and a step twice as long."""
        with torch.no_grad():
            now = self.now()
            return SharedStepInputs(_fewer(now.bits), 2 * now.step, now.signed)


def _fewer(bits: int) -> int:
    if bits - 1 not in WIDTHS:
        raise ConfigError(f"{bits} bits are the fewest that a supernet has; it cannot hand fewer on")
    return bits - 1


def _start(mean_size: Tensor, top: int) -> Tensor:
    return (2 * mean_size / math.sqrt(top)).clamp(min=_SMALLEST)


def _slowed(step: Tensor, used: Tensor, top: int) -> Tensor:
    """The step itself, its gradient times ``1 / sqrt(N Qp)``; ``x + (x - x) f`` is ``x`` exactly."""
    now = step.detach()
    return now + (step - now) / math.sqrt(used.numel() * top)
