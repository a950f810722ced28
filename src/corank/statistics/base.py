"""What a streaming summary owes. Shapes: ``G`` groups, ``R`` rows, ``C`` columns, ``N`` sampled positions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Self, TypeVar

import torch
from torch import Tensor

__all__ = ["LayerStatistics", "Statistic", "require"]

S = TypeVar("S", bound="Statistic")


class Statistic(ABC):
    """A summary of what one layer sees, updated batch by batch in float32 with bounded memory."""

    @abstractmethod
    def update(self, rows: Tensor, positions: int) -> None:
        """Takes ``(G, N, width)`` sampled rows; ``positions`` is how many each sample really has."""

    @abstractmethod
    def to(self, device: torch.device) -> Self:
        """The same statistic there: itself, or a copy that is made once until the next update."""


LayerStatistics = Mapping[type[Statistic], Statistic]


def require(statistics: LayerStatistics, kind: type[S], who: str) -> S:
    """The statistic of that kind.

    Raises:
        KeyError: naming who asked for it, when it was not collected.
    """
    found = statistics.get(kind)
    if not isinstance(found, kind):
        raise KeyError(f"{who} needs the statistic {kind.__name__}; collect it with corank.calibration.collect")
    return found
