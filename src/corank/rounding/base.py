"""What a rounder owes: it picks codes, and never looks at which codec it was given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from corank.codecs import Codebook
from corank.statistics import LayerStatistics, Statistic

__all__ = ["Rounder"]


class Rounder(ABC):
    """Chooses the code of every weight of one layer.

    Attributes:
        needs: statistics to collect.
        corrects_input_error: whether it corrects the error of the layers before by itself, from a
            :class:`~corank.statistics.CrossMoments` where there is one. It is then given the float weight, and not the
            weight that best gives the float outputs from quantized inputs.
        walks_columns: whether it goes column by column, in many small steps, which a device is slow to start.
    """

    needs: ClassVar[tuple[type[Statistic], ...]] = ()
    corrects_input_error: ClassVar[bool] = False
    walks_columns: ClassVar[bool] = False

    def comparison_stand_in(self) -> Rounder:
        """What stands in for it where codecs of a layer are only compared: itself, or one that takes less time."""
        return self

    def drawing_for(self, part: str) -> Rounder:
        """What rounds that part of a network, such as a layer or a round of one: itself or, where it draws, one whose
        draws are independent of those for every other part."""
        return self

    @abstractmethod
    def __call__(self, weight: Tensor, codebook: Codebook, statistics: LayerStatistics) -> Tensor:
        """Codes ``(G * R, C)`` uint8 of ``weight`` ``(G * R, C)`` float32.

        Raises:
            KeyError: when a statistic in ``needs`` is missing.
        """
