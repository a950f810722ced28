"""What a rounder owes: it picks codes, and never looks at which codec it was given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from corank.codecs import Codebook
from corank.statistics import LayerStatistics, Statistic

__all__ = ["Rounder"]


class Rounder(ABC):
    """Chooses the code of every weight of one layer."""

    needs: ClassVar[tuple[type[Statistic], ...]] = ()

    @abstractmethod
    def __call__(self, weight: Tensor, codebook: Codebook, statistics: LayerStatistics) -> Tensor:
        """Codes ``(G * R, C)`` uint8 of ``weight`` ``(G * R, C)`` float32.

        Raises:
            KeyError: when a statistic in ``needs`` is missing.
        """
