"""Qronos (arXiv 2505.11695): corrects the error that the layers before have made, then spreads the layer's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from corank.codecs import Codebook
from corank.errors import ConfigError
from corank.rounding.base import Rounder
from corank.rounding.gptq import inverse_factor
from corank.rounding.walk import Walk, energy_order, walk
from corank.statistics import CrossMoments, Gram, LayerStatistics, require

__all__ = ["Qronos"]


@dataclass(frozen=True)
class Qronos(Rounder):
    """Alternates the best code for the error so far with the best weights for the columns still to come.

    With ``x`` of the float network and ``x'`` of the quantized one (from
    :class:`~corank.statistics.CrossMoments` where it was collected, else ``x' = x``), for each column ``t``, the
    columns before it being rounded::

        q_t    = argmin_q |W x - sum_{j<t} q_j x'_j - q x'_t - sum_{j>t} w_j x'_j|^2
        w_{>t} = argmin_w |W x - sum_{j<=t} q_j x'_j - sum_{j>t} w_j x'_j|^2

    From the second column on, the first line is rounding to nearest. Columns go in descending order of their inputs'
    energy. Inputs that are always zero get a unit diagonal.

    Args:
        damping: of both lines, as a part of the mean energy of an input: added to the diagonal of ``E[x' x'^T]``, and
            of ``E[x x'^T]``, so that it pulls towards the float weight.
        block: columns updated together; changes the speed, not the result.
    """

    needs = (Gram,)
    corrects_input_error: ClassVar[bool] = True
    walks_columns: ClassVar[bool] = True

    damping: float = 0.01
    block: int = 64

    def __post_init__(self) -> None:
        if not self.damping > 0 or self.block < 1:
            raise ConfigError(f"Qronos(damping={self.damping!r}, block={self.block!r}): both are positive")

    def __call__(self, weight: Tensor, codebook: Codebook, statistics: LayerStatistics) -> Tensor:
        gram, drift = require(statistics, Gram, "Qronos"), statistics.get(CrossMoments)
        seen = drift.gram.matrix if isinstance(drift, CrossMoments) else gram.matrix
        order = energy_order(seen)
        seen, how = seen[:, order][:, :, order], Walk(codebook, order, self.block)
        factor = inverse_factor(seen, self.damping)
        spread = factor / factor.diagonal(dim1=1, dim2=2)[:, :, None]
        rest = weight.float().reshape(seen.shape[0], -1, weight.shape[1])[:, :, order]
        if not isinstance(drift, CrossMoments):
            return walk(rest.clone(), spread, how)
        missed = rest @ (drift.cross[:, order][:, :, order] - seen)  # of W x along x', were nothing rounded
        energy = seen[:, 0, 0] + self.damping * seen.diagonal(dim1=1, dim2=2).mean(1)
        first = rest[:, :, 0] + missed[:, :, 0] / energy.clamp(min=1e-12)[:, None]
        rest = rest + missed @ factor.transpose(1, 2) @ factor
        return walk(rest, spread, how, first=first)
