"""Signs of centred weights (BinaryViT, arXiv 2306.16678)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from corank.codecs import Binary, Codec
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError
from corank.training.weights.base import TrainableWeight, WeightStart, WeightTraining, straight_through

__all__ = ["CentredSigns"]


@dataclass(frozen=True)
class CentredSigns(WeightTraining):
    """``a sign(W - mean W)`` of each row with ``a = mean |W|``, that of the uncentred weight; ``sign(0) = +1``.

    Backward the identity where ``|W - mean W| <= 1``, else zero, and then that of the centring; none through ``a``.
    Convolutions are not centred, as in the paper's code. The scale is the one that fp16 holds.

    Args:
        codec: ``Binary()``; the field is there for other ways' sake.
    """

    codec: Codec = field(default_factory=Binary)
    starts: ClassVar[tuple[str, ...]] = ("float", "scratch")  # the signs of codes are not those of a centred weight

    def __post_init__(self) -> None:
        if self.codec != Binary():
            raise ConfigError(f"codec={self.codec!r}: CentredSigns() trains Binary(), 1 bit and a scale a row")

    @property
    def stored(self) -> Codec:
        return self.codec

    def start(self, given: WeightStart) -> tuple[TrainableWeight, Tensor]:
        return _CentredSigns(given.geometry is None or not given.geometry.kernel), given.weight


class _CentredSigns(TrainableWeight):
    """See :class:`CentredSigns`."""

    def __init__(self, centred: bool) -> None:
        super().__init__()
        self._centred = centred

    @property
    def codec(self) -> Codec:
        return Binary()

    def forward(self, weight: Tensor) -> Tensor:
        found = self.coded(weight).decode()
        if not (torch.is_grad_enabled() and weight.requires_grad):
            return found
        centred = self._centre(weight)
        return straight_through(found, torch.where(centred.abs() <= 1, centred, centred.detach()))

    def coded(self, weight: Tensor) -> CodedWeight:
        with torch.no_grad():
            return CodedWeight((self._centre(weight) >= 0).to(torch.uint8), Binary().fit(weight))

    def _centre(self, weight: Tensor) -> Tensor:
        return weight - weight.mean(1, keepdim=True) if self._centred else weight
