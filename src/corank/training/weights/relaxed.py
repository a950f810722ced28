"""The relaxation of BinaryRelax (arXiv 1801.06313): a blend of a weight and what it rounds to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from corank.codecs import Binary, Codec
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError
from corank.training.weights.base import TrainableWeight, WeightStart, WeightTraining, straight_through
from corank.training.weights.straight_through import StraightThrough

__all__ = ["Relaxed", "RelaxedWeight"]


@dataclass(frozen=True)
class Relaxed(WeightTraining):
    """The layer computes with ``(eta Q(W) + W) / (1 + eta)``; its gradient reaches ``W`` as it is.

    ``eta`` is 1 until a callback, such as :class:`~corank.training.callbacks.Relax`, sets it. In evaluation mode, and
    in what ships, the weight is ``Q(W)`` whatever ``eta`` is.

    Args:
        inner: how ``Q`` is found. What it learns itself (a scale) gets its gradient through the blend.
    """

    inner: WeightTraining = field(default_factory=lambda: StraightThrough(Binary()))

    @property
    def stored(self) -> Codec | None:
        return self.inner.stored

    def start(self, given: WeightStart) -> tuple[TrainableWeight, Tensor]:
        inner, weight = self.inner.start(given)
        if not inner.trains_weight or inner.latents:
            kind = type(self.inner).__name__
            raise ConfigError(
                f"Relaxed({kind}()): it has no float weight to blend with; StraightThrough(codec) has one"
            )
        return RelaxedWeight(inner), weight

    def with_codec(self, codec: Codec) -> Self:
        return replace(self, inner=self.inner.with_codec(codec))


class RelaxedWeight(TrainableWeight):
    """See :class:`Relaxed`."""

    def __init__(self, inner: TrainableWeight) -> None:
        super().__init__()
        self.inner = inner
        # The share of Q in the blend, eta / (1 + eta): finite where eta is not, and on the weight's device.
        self.register_buffer("share", torch.tensor(0.5, dtype=torch.float32))

    @property
    def codec(self) -> Codec | None:
        return self.inner.codec

    def relax(self, eta: float) -> None:
        """Sets ``eta``: 0 for ``W`` alone, infinity for ``Q(W)`` alone."""
        self.get_buffer("share").fill_(1.0 if math.isinf(eta) else eta / (1 + eta))

    def forward(self, weight: Tensor) -> Tensor:
        if not self.training:
            return self.inner(weight)
        apart = weight.detach()
        blend = torch.lerp(apart, self.inner(apart), self.get_buffer("share"))  # exact at both ends
        # The gradient of the whole blend goes to W, not the shares of it that Q's rounding and W's own part have.
        return straight_through(torch.zeros_like(apart), weight) + blend

    def coded(self, weight: Tensor) -> CodedWeight:
        return self.inner.coded(weight)

    def after_step(self, weight: Tensor, step: int) -> None:
        self.inner.after_step(weight, step)
