"""Trellis-coded quantization with GPTQ's error feedback, at a price of a bit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from corank.codecs import Codebook, TrellisCodebook
from corank.codecs.trellis import counted, prices, settled
from corank.errors import ConfigError
from corank.kernels.trellis import Chain, cheapest_path, visited_states
from corank.rounding.base import Rounder
from corank.rounding.descent import descend
from corank.rounding.gptq import Gptq, inverse_factor
from corank.rounding.pruned import Pruned
from corank.rounding.walk import Walk, energy_order, walk
from corank.statistics import Gram, LayerStatistics, require

__all__ = ["Dependent"]

_SAMPLE = 1 << 13  # weights that the first prices are found by


@dataclass(frozen=True)
class Dependent(Rounder):
    """Rounds column by column as :class:`Gptq`, each column on its cheapest path through the trellis.

    Given the columns before it, the errors of a column's rows do not touch each other, and each costs
    ``(error / d)^2``, ``d`` being the column's diagonal entry of GPTQ's factor. So a chain down the rows has exact
    feedback by itself: Viterbi finds the column of least ``sum((error / d)^2) + price * bits``, and its errors move the
    columns still to come. Bits are by how often each multiple was taken in each grid so far, counted on after every
    column. Codes of other codecs than :class:`~corank.codecs.Trellis` are those of :class:`Gptq`.

    Args:
        damping, block: as of :class:`Gptq`.
        sweeps: walks over the columns afterwards, each taking its cheapest path while all others stay.
    """

    needs = (Gram,)
    walks_columns: ClassVar[bool] = True

    damping: float = 0.01
    block: int = 64
    sweeps: int = 0

    def __post_init__(self) -> None:
        if not self.damping > 0 or self.block < 1:
            raise ConfigError(f"Dependent(damping={self.damping!r}, block={self.block!r}): both are positive")
        if type(self.sweeps) is not int or self.sweeps < 0:
            raise ConfigError(f"Dependent(sweeps={self.sweeps!r}): a whole number, 0 for one walk")

    def comparison_stand_in(self) -> Rounder:
        """The same without sweeps."""
        return replace(self, sweeps=0)

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
        chained.start(weight)
        codes = walk(targets, spread, Walk(chained, order, self.block))
        again = replace(chained, costs=gram.matrix.diagonal(dim1=1, dim2=2).double().cpu().numpy(), counting=False)
        for _ in range(self.sweeps):
            again.recount(codes)
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
    return order, factor / diagonal[:, :, None], costs.double().cpu().numpy()


@dataclass(frozen=True)
class _Chained(Codebook):
    """A codebook whose columns are rounded to their cheapest paths.

    Attributes:
        codebook: of all weights, or of these columns.
        grids: the same where nothing is pruned.
        costs: ``(G, C)``, of a squared error in each column.
        price: of a bit.
        counts: ``(2, L)``, how often each multiple was taken so far in each grid; written to.
        counting: whether columns are counted as they are rounded.
    """

    codebook: Codebook
    grids: TrellisCodebook
    costs: np.ndarray
    price: float
    counts: np.ndarray
    counting: bool = True

    @classmethod
    def of(cls, codebook: Codebook, grids: TrellisCodebook, costs: np.ndarray) -> _Chained:
        # One price for the layer: a bit is worth as much wherever it is saved.
        step = float(grids.scale.double().square().mean())
        return cls(codebook, grids, costs, grids.price * step * float(costs.mean()), np.zeros((2, len(grids.levels))))

    def start(self, weight: Tensor) -> None:
        """Begins counting with what a sample of the weights would take."""
        level = (weight / self.grids.spread(self.grids.scale, weight.shape[1])).reshape(-1)
        sample = level[:: -(-len(level) // _SAMPLE)].double().cpu().numpy()
        self.counts[:] = settled(sample, self.grids.states, self.grids.price, len(self.grids.levels) // 2)[0]

    def recount(self, codes: Tensor) -> None:
        """Counts codes ``(R, C)`` anew."""
        most = len(self.grids.levels) // 2
        values = codes.cpu().numpy().astype(np.int32) - most
        visited = visited_states(values, self.grids.states)
        assert visited is not None  # this rounder's own
        self.counts[:] = counted(values, visited, self.grids.states, most)

    def rounded(self, weight: Tensor) -> Tensor:
        most, groups = len(self.grids.levels) // 2, len(self.costs)
        scale = self.grids.scale.double().cpu().numpy()[:, 0]
        costs = np.repeat(self.costs[:, 0], len(weight) // groups) * scale * scale
        zero_only = self.codebook.mask[:, 0].cpu().numpy() if isinstance(self.codebook, Pruned) else None
        chain = Chain(weight[:, 0].double().cpu().numpy() / scale, costs, zero_only)
        values, visited = cheapest_path(chain, self.price * prices(self.counts), self.grids.states)
        if self.counting:
            self.counts[:] += counted(values, visited, self.grids.states, most)
        return self.grids.values(torch.from_numpy(values + most)[:, None].to(weight.device))

    def columns(self, index: Tensor) -> _Chained:
        places = index.cpu().numpy()
        return replace(
            self, codebook=self.codebook.columns(index), grids=_columns(self.grids, index), costs=self.costs[:, places]
        )

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


def _columns(grids: TrellisCodebook, index: Tensor) -> TrellisCodebook:
    found = grids.columns(index)
    assert isinstance(found, TrellisCodebook)
    return found
