"""What a search owes: it reads the problem and returns ranks; it never changes the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from corank.adapters import LowRank
from corank.calibration import Samples
from corank.codecs import Codec
from corank.losses import Loss
from corank.matrix import Geometry

__all__ = [
    "AdaptableLayer",
    "Allocation",
    "AllocationProblem",
    "Candidates",
    "RateDistortionCurve",
    "Search",
    "spent_bits",
]


@dataclass(frozen=True)
class AdaptableLayer:
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
class RateDistortionCurve:
    """What one layer loses with one codec, at every rank.

    Attributes:
        codec: that it is coded with.
        code_bits: stored without an adapter.
        bits_per_rank: stored for one more rank.
        lost: estimated loss without an adapter.
        gains: ``(K,)`` float32, non-increasing: what each further rank takes off; empty where no adapter is possible.
    """

    codec: Codec
    code_bits: int
    bits_per_rank: int
    lost: float
    gains: Tensor

    @property
    def full_rank(self) -> int:
        return len(self.gains)

    def errors(self) -> Tensor:
        """``(K + 1,)`` float64: estimated loss at ranks 0 to K."""
        return torch.cat([torch.zeros(1, dtype=torch.float64), -self.gains.double().cpu().cumsum(0)]) + self.lost

    def bits(self) -> Tensor:
        """``(K + 1,)`` int64: all bits stored at ranks 0 to K."""
        return self.code_bits + self.bits_per_rank * torch.arange(self.full_rank + 1)


class Candidates(ABC):
    """Other codecs that the layers of a problem may get.

    Attributes:
        codecs: of the plan, of all layers that a search decides on, in the order they run.
        shapes: ``(G, R, C)`` of those layers.
        free: those that may get another codec.
    """

    codecs: Mapping[str, Codec]
    shapes: Mapping[str, tuple[int, int, int]]
    free: Collection[str]

    @abstractmethod
    def curves(self, name: str, codecs: Sequence[Codec], measured: bool) -> tuple[RateDistortionCurve, ...]:
        """Codes a layer with each codec and says what is lost; cheapest asked in the order the layers run.

        ``measured``: scales each curve to the divergence of the output when this layer alone is coded.
        """

    @abstractmethod
    def recoded(self, codecs: Mapping[str, Codec], budget_bits: int) -> AllocationProblem:
        """The problem of finding ranks only, with these codecs for the layers named."""

    @abstractmethod
    def over(self, found: Allocation) -> int | None:
        """Bits by which the file would be too large, negative for room that is left; None where no size was set."""

    @property
    def base_bits(self) -> int:
        """Bits of codes and codebooks of all layers with the plan's codecs."""
        return sum(_stored(codec, self.shapes[name]) for name, codec in self.codecs.items())

    def code_bits(self, codecs: Mapping[str, Codec]) -> int:
        """Bits that these codecs, for the layers named, store more than the plan's; may be negative."""
        return sum(
            _stored(codec, self.shapes[name]) - _stored(self.codecs[name], self.shapes[name])
            for name, codec in codecs.items()
        )


def _stored(codec: Codec, shape: tuple[int, int, int]) -> int:
    return codec.size_bits(shape[0] * shape[1], shape[2])


@dataclass(frozen=True)
class AllocationProblem:
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
        alternatives: other codecs, for a search that chooses codecs.
    """

    model: nn.Module
    samples: Samples
    layers: Mapping[str, AdaptableLayer]
    fixed: Mapping[str, Tensor]
    budget_bits: int
    weights: int
    adapter_bits: int
    loss: Loss
    seed: int = 0
    progress: Callable[[str, int, int], None] | None = None
    alternatives: Candidates | None = None


@dataclass(frozen=True)
class Allocation:
    """What a search returns.

    Attributes:
        ranks: layer name to rank; within the budget.
        history: one entry for each gradient step: iteration, loss, divergence, extra_bits (per weight).
        iterations: gradient steps taken.
        codecs: layer name to codec, of layers that get another than the plan's; what they store more than those (it
            may be less) counts against the budget.
    """

    ranks: Mapping[str, int]
    history: tuple[Mapping[str, float], ...] = field(default=())
    iterations: int = 0
    codecs: Mapping[str, Codec] = field(default_factory=dict)


class Search(ABC):
    """A policy that turns a problem into ranks.

    Attributes:
        needs_coded_weights: whether it looks at what rounding loses; if not, its problem's weights and directions are
            zero.
        chooses_codecs: whether it returns codecs, too; its problem then has ``alternatives``.
    """

    needs_coded_weights: ClassVar[bool] = True
    chooses_codecs: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, problem: AllocationProblem) -> Allocation:
        """Ranks whose stored bits do not exceed ``problem.budget_bits``."""


def spent_bits(problem: AllocationProblem, ranks: Mapping[str, int]) -> int:
    """Bits that adapters of those ranks store."""
    return sum(rank * problem.layers[name].bits_per_rank for name, rank in ranks.items())
