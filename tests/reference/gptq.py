"""GPTQ as Optimal Brain Quantization states it: after each column, delete it and invert what is left anew."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gptq(weight: Tensor, gram: Tensor, damping: float, rounded: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Values ``(R, C)`` float64.

    Args:
        weight: ``(R, C)``.
        gram: ``(C, C)``.
        damping: part of the diagonal's mean that is added to it.
        rounded: values ``(R,)`` closest to a column ``(R,)``, given the column's number.
    """
    rest, gram = weight.double().clone(), gram.double().clone()
    columns = weight.shape[1]
    energy = [float(gram[column, column]) for column in range(columns)]
    for column in range(columns):
        gram[column, column] = (energy[column] or 1.0) + damping * sum(energy) / columns
    order = sorted(range(columns), key=lambda column: -energy[column])
    result = torch.zeros_like(rest)
    while order:
        column = order[0]
        inverse = torch.linalg.inv(gram[order][:, order])
        result[:, column] = rounded(rest[:, column], column)
        error = (rest[:, column] - result[:, column]) / inverse[0, 0]
        rest[:, order] -= error[:, None] * inverse[0][None, :]
        order = order[1:]
    return result
