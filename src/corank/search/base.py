"""What a search owes: it reads the problem and returns ranks; it never changes the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from corank.search.allocation import Allocation
from corank.search.problem import AllocationProblem

__all__ = ["Search"]


class Search(ABC):
    """A policy that turns a problem into ranks.

    Attributes:
        needs_coded_weights: whether it looks at what rounding loses; if not, its problem's layers hold no weights and
            no directions.
        chooses_codecs: whether it returns codecs, too; its problem then has ``candidates``.
    """

    needs_coded_weights: ClassVar[bool] = True
    chooses_codecs: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, problem: AllocationProblem) -> Allocation:
        """Ranks whose stored bits do not exceed ``problem.budget_bits``."""
