"""Inputs rounded for most channels' sake, in the manner of Direct Quantization (arXiv 2012.13762; a reconstruction)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from corank.errors import ConfigError
from corank.layers import InputQuantizer
from corank.processes import all_reduce
from corank.training.inputs.base import InputStart, InputTraining, TrainableInputs

__all__ = ["ChannelWeightedInputs", "channel_errors", "importance"]

_RATIOS = [2.0 ** (k / 8) for k in range(-48, 17)]  # of the step as it is: a far better one may lie beyond worse ones
_NUMBERS = 1 << 17  # of a batch that are looked at
_LEAST_VARIANCE = 1e-3  # of the channels' mean: a channel that hardly varies must not decide alone
_MOMENTUM = 0.1


@dataclass(frozen=True)
class ChannelWeightedInputs(InputTraining):
    """One step a layer, that of least ``sum_c pi_c E|x_c - Q(x_c)|^2`` with ``pi_c ~ 1 / Var(x_c)``.

    With the plain squared error, a few channels of large variance decide on the step. The step is a running (geometric)
    mean of those that are best for the batches. Gradients pass straight through inside of the range.

    Args:
        bits: 2 to 8.
        every: training passes after which the step is fitted anew; 0 for never.
        weighted: false for ``pi_c = 1``, the plain squared error.
    """

    bits: int = 4
    every: int = 20
    weighted: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.every) is not int or self.every < 0:
            raise ConfigError(f"every={self.every!r}: passes, 0 for never, e.g. ChannelWeightedInputs(4, every=20)")

    def start(self, given: InputStart) -> TrainableInputs:
        return _Weighted(self, given)


class _Weighted(TrainableInputs):
    def __init__(self, how: ChannelWeightedInputs, given: InputStart) -> None:
        super().__init__()
        self._how, self._axis, self._quantizer = how, given.axis, given.codes
        self.register_buffer("step", given.codes.step.clone())
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64, device=given.codes.step.device))

    def forward(self, inputs: Tensor) -> Tensor:
        if torch.is_grad_enabled() and self._how.every:
            self._refit(inputs.detach())
        return self.quantizer()(inputs)

    def quantizer(self) -> InputQuantizer:
        return replace(self._quantizer, step=self.get_buffer("step").to(torch.float16).float())

    @torch.no_grad()
    def _refit(self, inputs: Tensor) -> None:
        step, passes = self.get_buffer("step"), self.get_buffer("passes")
        number = int(passes)
        passes += 1
        if number % self._how.every:
            return
        axis = self._axis if self._axis is not None else 1 if inputs.dim() >= 4 else -1
        channels = inputs.movedim(axis, 0).flatten(1).float()
        channels = channels[:, :: max(1, channels.numel() // _NUMBERS)]
        weights = importance(channels) if self._how.weighted else torch.ones_like(channels[:, 0])
        tried = [replace(self._quantizer, step=step * ratio) for ratio in _RATIOS]
        errors = torch.stack([weights @ channel_errors(channels, one) for one in tried])
        all_reduce([errors])  # so that all processes take the same step
        share = max(_MOMENTUM, 1 / (1 + number // self._how.every))
        step.mul_(_RATIOS[int(errors.argmin())] ** share)


def channel_errors(channels: Tensor, quantizer: InputQuantizer) -> Tensor:
    """``E|x_c - Q(x_c)|^2`` ``(C,)`` of inputs ``(C, N)``."""
    return (quantizer(channels) - channels).square().mean(1)


def importance(channels: Tensor) -> Tensor:
    """``pi_c`` ``(C,)``, of mean 1, in proportion to one over the variance of inputs ``(C, N)``; zero of a channel that
    never varies."""
    variance = channels.var(1, correction=0)
    weights = torch.where(variance > 0, 1 / variance.clamp(min=1e-30 + _LEAST_VARIANCE * float(variance.mean())), 0.0)
    return weights / weights.mean().clamp(min=1e-30)
