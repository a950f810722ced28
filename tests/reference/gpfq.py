"""Greedy path following with the samples at hand, row by row, as arXiv 2201.11113 states it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gpfq(weight: Tensor, inputs: Tensor, seen: Tensor, rounded: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Values ``(R, C)`` float64.

    Args:
        weight: ``(R, C)``.
        inputs: ``(N, C)`` of the float network.
        seen: ``(N, C)`` of the quantized network, the same samples.
        rounded: values ``(R,)`` closest to a column ``(R,)``, given the column's number.
    """
    weight, inputs, seen = weight.double(), inputs.double(), seen.double()
    energy = [float(seen[:, column].square().sum()) for column in range(weight.shape[1])]
    result = torch.zeros_like(weight)
    error = torch.zeros(weight.shape[0], len(inputs), dtype=torch.float64)  # u, a row of samples for each neuron
    for column in sorted(range(weight.shape[1]), key=lambda column: -energy[column]):
        wanted = error + weight[:, column, None] * inputs[:, column]
        best = weight[:, column] if energy[column] == 0 else wanted @ seen[:, column] / energy[column]
        result[:, column] = rounded(best, column)
        error = wanted - result[:, column, None] * seen[:, column]
    return result
