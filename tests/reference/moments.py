"""Inputs of a layer in the float network and in the quantized one, and their moments."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from corank.codecs import Codebook
from corank.statistics import CrossMoments, Gram, LayerStatistics


def inputs_of(groups: int, count: int, columns: int) -> tuple[Tensor, Tensor]:
    """Correlated inputs of the float network, and the same with some error."""
    inputs = torch.randn(groups, count, columns) @ torch.randn(groups, columns, columns)
    return inputs, inputs + 0.5 * torch.randn_like(inputs)


def statistics_of(inputs: Tensor, seen: Tensor | None = None) -> LayerStatistics:
    groups, count, columns = inputs.shape
    gram, drift = Gram(groups, columns), CrossMoments(groups, columns)
    gram.update(inputs, count)
    if seen is None:
        return {Gram: gram}
    drift.update_pair(inputs, seen, count)
    return {Gram: gram, CrossMoments: drift}


def column_rounding(codebook: Codebook) -> Callable[[Tensor, int], Tensor]:
    """Nearest value of a column ``(R,)`` of that number, in float64."""

    def rounded(column: Tensor, number: int) -> Tensor:
        part = codebook.columns(torch.tensor([number]))
        return part.values(part.nearest(column.float()[:, None]))[:, 0].double()

    return rounded
