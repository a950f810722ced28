"""Qronos with the samples at hand: both lines of every step solved anew."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def qronos(
    weight: Tensor, inputs: Tensor, seen: Tensor, damping: float, rounded: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """Values ``(R, C)`` float64.

    Damping is one more sample for each column, which both networks see alike: there the weight meets itself.

    Args:
        weight: ``(R, C)``.
        inputs: ``(N, C)`` of the float network.
        seen: ``(N, C)`` of the quantized network, the same samples.
        damping: part of the mean energy of a seen input.
        rounded: values ``(R,)`` closest to a column ``(R,)``, given the column's number.
    """
    weight, inputs, seen = weight.double(), inputs.double(), seen.double()
    energy = seen.square().sum(0)
    order = sorted(range(weight.shape[1]), key=lambda column: -float(energy[column]))
    pull = (damping * energy.mean()).sqrt() * torch.eye(weight.shape[1], dtype=torch.float64)
    inputs, seen = torch.cat([inputs, pull]), torch.cat([seen, pull])
    wanted = inputs @ weight.T
    rest, result = weight.clone(), torch.zeros_like(weight)
    for step, column in enumerate(order):
        done, later = order[:step], order[step + 1 :]
        unmet = wanted - seen[:, done] @ result[:, done].T - seen[:, later] @ rest[:, later].T
        best = seen[:, column] @ unmet / seen[:, column].square().sum()
        result[:, column] = rounded(best, column)
        if later:
            met = seen[:, [*done, column]] @ result[:, [*done, column]].T
            rest[:, later] = torch.linalg.lstsq(seen[:, later], wanted - met).solution.T
    return result
