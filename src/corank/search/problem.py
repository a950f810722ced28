"""What a search is given: layers that may get an adapter, a budget and, if codecs may change, what each would lose."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from corank.adapters import LowRank, full_rank
from corank.calibration import Context
from corank.codecs import Codec
from corank.matrix import Geometry
from corank.search.allocation import Allocation

__all__ = ["AdaptableLayer", "AllocationProblem", "CodecCandidates", "RateDistortionCurve", "spent_bits"]

_NONE = torch.zeros(0, dtype=torch.float32)
_NO_DIRECTIONS = LowRank(_NONE, _NONE, _NONE)


@dataclass(frozen=True)
class AdaptableLayer:
    """One layer that may get an adapter.

    Attributes:
        geometry: of the layer.
        bits_per_rank: all bits that one more rank stores.
        coded: its weight as coded without an adapter, ``(G, R, C)`` float32.
        directions: the full-rank adapter of what was lost, most valuable direction first.
        gains: ``(K,)`` float32, non-increasing: estimated loss that each further rank takes off.

    The last three are empty for a search that does not look at what rounding loses.
    """

    geometry: Geometry
    bits_per_rank: int
    coded: Tensor = _NONE
    directions: LowRank = _NO_DIRECTIONS
    gains: Tensor = _NONE

    @property
    def full_rank(self) -> int:
        return full_rank(self.geometry.matrix_shape)


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


@dataclass(frozen=True)
class CodecCandidates:
    """Other codecs that the layers of a problem may get, and what each would lose.

    Ask for layers in the order they run: their statistics are collected a few at a time.

    Attributes:
        codecs: of the plan, of all layers that a search decides on, in the order they run.
        shapes: ``(G, R, C)`` of those layers.
        free: those that may get another codec.
        lost: estimated loss of a layer with a codec and no adapter.
        curve: the same at every rank; if asked, scaled to the divergence of the output when this layer alone is coded.
        recoded: the problem of finding ranks only, within so many bits, with these codecs for the layers named.
        over: bits by which the file would be too large, negative for room that is left; None where no size was set.
    """

    codecs: Mapping[str, Codec]
    shapes: Mapping[str, tuple[int, int, int]]
    free: Collection[str]
    lost: Callable[[str, Codec], float]
    curve: Callable[[str, Codec, bool], RateDistortionCurve]
    recoded: Callable[[Mapping[str, Codec], int], AllocationProblem]
    over: Callable[[Allocation], int | None] = lambda _: None

    def curves(self, name: str, codecs: Sequence[Codec], measured: bool) -> tuple[RateDistortionCurve, ...]:
        """A curve for each codec."""
        return tuple(self.curve(name, codec, measured) for codec in codecs)

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
        context: the float model (norms folded, evaluation mode; searches work on copies), unlabelled samples, the loss
            between outputs, the seed that draws batches, and the progress to tell.
        layers: name to layer, in the order they run; only those that may get an adapter.
        budget_bits: bits that all adapters together may store.
        weights: quantized weights, the denominator of bits per weight.
        adapter_bits: of the factors; the paper's m.
        fixed: coded weights, in their layers' own shape, of quantized layers that get none.
        candidates: other codecs, for a search that chooses codecs.
    """

    context: Context
    layers: Mapping[str, AdaptableLayer]
    budget_bits: int
    weights: int
    adapter_bits: int
    fixed: Mapping[str, Tensor] = field(default_factory=dict)
    candidates: CodecCandidates | None = None


def spent_bits(problem: AllocationProblem, ranks: Mapping[str, int]) -> int:
    """Bits that adapters of those ranks store."""
    return sum(rank * problem.layers[name].bits_per_rank for name, rank in ranks.items())
