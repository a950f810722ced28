"""Proximal maps of sparsity penalties, the one-dimensional minimisers that unrolled networks are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["PROXIMAL", "proximal_l1", "proximal_mcp", "proximal_scad"]

MCP_GAMMA = 3.0  # in units of the step: the penalty is flat beyond gamma times the threshold
SCAD_A = 3.7  # Fan and Li's choice


def proximal_l1(values: Tensor, threshold: Tensor) -> Tensor:
    """``argmin_u (u - z)^2 / 2 + t |u|``: soft thresholding.

    Args:
        values: ``z``, any shape.
        threshold: ``t >= 0``, the step times the weight of the penalty; broadcast against ``values``.
    """
    return values.sign() * (values.abs() - threshold).clamp(min=0)


def proximal_mcp(values: Tensor, threshold: Tensor) -> Tensor:
    """The same for the minimax concave penalty (Zhang 2010), ``t |u| - u^2 / 6`` up to ``3 t``, flat beyond: nothing
    below the threshold, unshrunk from three times it on."""
    size = values.abs()
    between = values.sign() * (size - threshold).clamp(min=0) / (1 - 1 / MCP_GAMMA)
    return torch.where(size <= MCP_GAMMA * threshold, between, values)


def proximal_scad(values: Tensor, threshold: Tensor) -> Tensor:
    """The same for smoothly clipped absolute deviation (Fan and Li 2001), ``a = 3.7``: soft thresholding up to
    ``2 t``, unshrunk from ``a t`` on, a line between."""
    size = values.abs()
    line = ((SCAD_A - 1) * values - values.sign() * SCAD_A * threshold) / (SCAD_A - 2)
    soft = proximal_l1(values, threshold)
    return torch.where(size <= 2 * threshold, soft, torch.where(size <= SCAD_A * threshold, line, values))


PROXIMAL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": proximal_l1,
    "mcp": proximal_mcp,
    "scad": proximal_scad,
}
"""By the name of the penalty."""
