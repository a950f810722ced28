"""Weight Compander (arXiv 2306.16993; a reconstruction): a float weight as a bounded function of what trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from corank.codecs import Codec
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError
from corank.training.weights.base import TrainableWeight, WeightStart, WeightTraining

__all__ = ["Compander", "CompanderWeight", "companded", "expanded"]


@dataclass(frozen=True)
class Compander(WeightTraining):
    """``w = a arctan(v / b)``; ``v`` trains in the weight's place, ``a`` and ``b`` of each layer with it.

    ``|w| < a pi / 2``. Both are their start times ``exp`` of what trains, and so positive, and do not decay. At the
    start ``v = b tan(w / a)``, which changes no weight. It ends in a float weight, :meth:`CompanderWeight.folded`.

    Args:
        width: ``a`` and ``b`` at the start, in largest magnitudes of the layer; above ``2 / pi``.
    """

    width: float = 2.0
    starts: ClassVar[tuple[str, ...]] = ("float", "scratch")

    def __post_init__(self) -> None:
        if type(self.width) not in (int, float) or not 0.65 <= self.width <= 1e4:
            raise ConfigError(f"width={self.width!r}: largest magnitudes, 0.65 to 10000, e.g. Compander(width=2.0)")

    @property
    def stored(self) -> None:
        return None

    def with_codec(self, codec: Codec) -> Compander:
        raise ConfigError(f"Compander ends in a float weight, which has no codec; corank.quantize codes it, as {codec}")

    def start(self, given: WeightStart) -> tuple[TrainableWeight, Tensor]:
        size = (self.width * given.weight.abs().amax()).clamp(min=1e-12)
        return CompanderWeight(size), expanded(given.weight, size, size)


class CompanderWeight(TrainableWeight):
    """See :class:`Compander`."""

    forgets = True

    def __init__(self, size: Tensor) -> None:
        super().__init__()
        self.growth = nn.Parameter(torch.zeros(2, dtype=size.dtype, device=size.device))
        self.register_buffer("size", size)

    @property
    def codec(self) -> None:
        return None

    def forward(self, weight: Tensor) -> Tensor:
        height, width = self.get_buffer("size") * self.growth.exp()
        return companded(weight, height, width)

    def coded(self, weight: Tensor) -> CodedWeight:
        raise ConfigError("Compander has no codes: folded(weight) gives the float weight; corank.quantize codes that")


def companded(weight: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """``height * arctan(weight / width)`` of ``(R, C)``, in the weight's dtype; scalars above zero."""
    return height * torch.atan(weight / width)


def expanded(weight: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """The inverse of :func:`companded`, of weights within ``height * pi / 2``."""
    return width * torch.tan(weight / height)
