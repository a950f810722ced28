"""What a search owes: it reads the problem and returns ranks; it never changes the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from corank.adapters import LowRank
from corank.calibration import Samples
from corank.losses import Loss
from corank.matrix import Geometry

__all__ = ["Found", "Problem", "Search", "SearchLayer", "spent_bits"]


@dataclass(frozen=True)
class SearchLayer:
    """One layer that may get an adapter.

    Attributes:
        geometry: of the layer.
        coded: its weight as coded without an adapter, ``(G, R, C)`` float32.
        directions: the full-rank adapter of what was lost, most valuable direction first.
        bits_per_rank: all bits that one more rank stores.
        gains: ``(K,)`` float32, non-increasing: estimated loss that each further rank takes off.
    """

    geometry: Geometry
    coded: Tensor
    directions: LowRank
    bits_per_rank: int
    gains: Tensor

    @property
    def full_rank(self) -> int:
        return self.directions.rank


@dataclass(frozen=True)
class Problem:
    """What a search is given.

    Attributes:
        model: the float model, norms folded, evaluation mode. Searches work on copies.
        samples: unlabelled calibration samples.
        layers: name to layer, in the order they run; only those that may get an adapter.
        fixed: coded weights, in their layers' own shape, of quantized layers that get none.
        budget_bits: bits that all adapters together may store.
        weights: quantized weights, the denominator of bits per weight.
        adapter_bits: of the factors; the paper's m.
        loss: distance of outputs ``(output, reference) -> scalar``.
        seed: draws the batches.
        progress: called with (what, done, total).
    """

    model: nn.Module
    samples: Samples
    layers: Mapping[str, SearchLayer]
    fixed: Mapping[str, Tensor]
    budget_bits: int
    weights: int
    adapter_bits: int
    loss: Loss
    seed: int = 0
    progress: Callable[[str, int, int], None] | None = None


@dataclass(frozen=True)
class Found:
    """What a search returns.

    Attributes:
        ranks: layer name to rank; within the budget.
        history: one entry for each gradient step: iteration, loss, divergence, extra_bits (per weight).
        iterations: gradient steps taken.
    """

    ranks: Mapping[str, int]
    history: tuple[Mapping[str, float], ...] = field(default=())
    iterations: int = 0


class Search(ABC):
    """A policy that turns a problem into ranks.

    Attributes:
        measures: whether it looks at what rounding loses; if not, its problem's weights and directions are zero.
    """

    measures: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, problem: Problem) -> Found:
        """Ranks whose stored bits do not exceed ``problem.budget_bits``."""


def spent_bits(problem: Problem, ranks: Mapping[str, int]) -> int:
    """Bits that adapters of those ranks store."""
    return sum(rank * problem.layers[name].bits_per_rank for name, rank in ranks.items())
