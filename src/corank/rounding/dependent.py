"""Trellis-coded quantization with GPTQ's error feedback, at a price of a bit."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from corank.codecs import Codebook, TrellisCodebook
from corank.codecs.trellis import counted, prices, settled
from corank.kernels.trellis import Chain, cheapest_path, visited_states
from corank.rounding.columns import ColumnRounder
from corank.rounding.descent import descend
from corank.rounding.gptq import Gptq, inverse_factor
from corank.rounding.pruned import Pruned
from corank.rounding.walk import Walk, energy_order, walk
from corank.statistics import Gram, LayerStatistics, require

__all__ = ["Dependent"]

_SAMPLE = 1 << 13  # weights that the first prices are found by
_RENEWED = 8  # columns between two looks at what multiples cost


@dataclass(frozen=True)
class Dependent(ColumnRounder):
    """Rounds column by column as :class:`Gptq`, each column on its cheapest path through the trellis.

    Given the columns before it, the errors of a column's rows do not touch each other, and each costs
    ``(error / d)^2``, ``d`` being the column's diagonal entry of GPTQ's factor. So a chain down the rows has exact
    feedback by itself: Viterbi finds the column of least ``sum((error / d)^2) + price * bits``, and its errors move the
    columns still to come. Bits are by how often each multiple was taken in each grid so far, counted on after every
    column. Codes of other codecs than :class:`~corank.codecs.Trellis` are those of :class:`Gptq`.

    Args:
        damping, block, sweeps: as of :class:`~corank.rounding.columns.ColumnRounder`; columns take their cheapest path.
    """

    def __call__(self, weight: Tensor, codebook: Codebook, statistics: LayerStatistics) -> Tensor:
        inner = codebook.codebook if isinstance(codebook, Pruned) else codebook
        if not isinstance(inner, TrellisCodebook):
            return Gptq(self.damping, self.block, self.sweeps)(weight, codebook, statistics)
        gram = require(statistics, Gram, "Dependent")
        order, spread, costs = gram.derived(
            ("dependent", self.damping), lambda: _ordered_costs(gram.matrix, self.damping)
        )
        weight = weight.float()
        targets = weight.reshape(spread.shape[0], -1, weight.shape[1])[:, :, order]
        chained = _Chained.of(codebook, inner, costs)
        sample = (weight / inner.scale).reshape(-1)
        sample = sample[:: -(-len(sample) // _SAMPLE)].double().cpu().numpy()
        most = len(inner.levels) // 2
        chained.tally.start(settled(sample, inner.states, inner.price, most)[0])
        codes = walk(targets, spread, Walk(chained, order, self.block))
        again = replace(chained, costs=gram.matrix.diagonal(dim1=1, dim2=2).double().cpu().numpy(), counting=False)
        for _ in range(self.sweeps):
            chained.tally.recount(codes.cpu().numpy().astype(np.int32) - most)
            moved = descend(codes, weight, Walk(again, order, self.block), gram.matrix, 1)
            if torch.equal(moved, codes):
                break
            codes = moved
        return codes


def _ordered_costs(gram: Tensor, damping: float) -> tuple[Tensor, Tensor, np.ndarray]:
    """The order of the columns, how a column's error spreads, and what it costs: ``(G, C)`` in the columns' own
    order."""
    order = energy_order(gram)
    factor = inverse_factor(gram[:, order][:, :, order], damping)
    diagonal = factor.diagonal(dim1=1, dim2=2)
    costs = torch.empty_like(diagonal)
    costs[:, order] = diagonal.square().reciprocal()
    # Inputs that nothing was seen of may come all the same: their weights are as dear as others.
    unseen = gram.diagonal(dim1=1, dim2=2) <= 0
    seen = costs[~unseen]
    costs[unseen] = seen.log().mean().exp() if seen.numel() else 1.0
    return order, factor / diagonal[:, :, None], costs.double().cpu().numpy()


class _Tally:
    """How often each multiple was taken so far in each grid, and what it therefore costs, ``(2, 2 M + 1)``."""

    def __init__(self, states: int, most: int, price: float) -> None:
        self._states, self._most, self._price = states, most, price
        self._counts, self._columns = np.zeros((2, 2 * most + 1)), 0
        self.priced = np.zeros_like(self._counts)

    def start(self, counts: np.ndarray) -> None:
        self._counts, self.priced = counts, self._price * prices(counts)

    def count(self, values: np.ndarray, visited: np.ndarray) -> None:
        """Adds a column ``(R,)``."""
        self._counts += counted(values, visited, self._states, self._most)
        self._columns += 1
        if self._columns % _RENEWED == 0:
            self.priced = self._price * prices(self._counts)

    def recount(self, values: np.ndarray) -> None:
        """Counts multiples ``(R, C)`` anew."""
        visited = visited_states(values, self._states)
        assert visited is not None  # the rounder's own
        self.start(counted(values, visited, self._states, self._most))


@dataclass(frozen=True)
class _Chained(Codebook):
    """A codebook whose columns are rounded to their cheapest paths.

    Attributes:
        codebook: of all weights.
        grids: the same where nothing is pruned.
        costs: ``(G, C)``, of a squared error in each column.
        mask: ``(R, C)`` bool, what is pruned; None for nothing.
        tally: what multiples cost.
        counting: whether columns are counted as they are rounded.
        place: of the column that is rounded.
    """

    codebook: Codebook
    grids: TrellisCodebook
    costs: np.ndarray
    mask: np.ndarray | None
    tally: _Tally
    counting: bool = True
    place: int = 0

    @classmethod
    def of(cls, codebook: Codebook, grids: TrellisCodebook, costs: np.ndarray) -> _Chained:
        # One price for the layer: a bit is worth as much wherever it is saved. By the geometric mean, as a few columns
        # of great cost would else set the price for all.
        typical, step = math.exp(float(np.log(costs).mean())), float(grids.scale)
        mask = codebook.mask.cpu().numpy() if isinstance(codebook, Pruned) else None
        tally = _Tally(grids.states, len(grids.levels) // 2, grids.price * step * step * typical)
        return cls(codebook, grids, costs, mask, tally)

    def rounded(self, weight: Tensor) -> Tensor:
        step, place = float(self.grids.scale), self.place
        costs = np.repeat(self.costs[:, place] * (step * step), len(weight) // len(self.costs))
        zero_only = None if self.mask is None else self.mask[:, place]
        chain = Chain(weight[:, 0].double().cpu().numpy() / step, costs, zero_only)
        values, visited = cheapest_path(chain, self.tally.priced, self.grids.states)
        if self.counting:
            self.tally.count(values, visited)
        return torch.from_numpy(values).to(weight.device, torch.float32)[:, None] * self.grids.scale

    def columns(self, index: Tensor) -> _Chained:
        return replace(self, place=int(index))

    @property
    def code_bits(self) -> int:
        return self.codebook.code_bits

    @property
    def size(self) -> int:
        return self.codebook.size

    def nearest(self, weight: Tensor) -> Tensor:
        return self.codebook.nearest(weight)

    def neighbours(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return self.codebook.neighbours(weight)

    def values(self, codes: Tensor) -> Tensor:
        return self.codebook.values(codes)

    def tensors(self) -> dict[str, Tensor]:
        return self.codebook.tensors()

    @property
    def size_bits(self) -> int:
        return self.codebook.size_bits
