"""Gradients that pass inside a range, in few looks at what may be millions of inputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Ends", "ends_of", "within"]

Ends = tuple[float, float] | tuple[Tensor, Tensor]


def ends_of(step: Tensor, low: float, high: float) -> Ends:
    """``low`` and ``high`` steps; scalars on ``step``'s device, as one that works ahead is not waited for."""
    if step.device.type != "cpu":
        return low * step, high * step
    size = float(step.detach())
    return low * size, high * size


def within(gradient: Tensor, inputs: Tensor, ends: Ends, closed: tuple[bool, bool] = (True, True)) -> Tensor:
    """``gradient`` where ``inputs`` lie in the range, with the ends that are ``closed``, and 0 elsewhere.

    On the CPU comparing numbers of 16 bits and choosing by a mask takes ten times what one operation does.
    """
    low, high = ends
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        above = inputs >= low if closed[0] else inputs > low
        below = inputs <= high if closed[1] else inputs < high
        # where, and not a product with the mask, which would be turned into numbers first
        return torch.where(above & below, gradient, 0.0)
    low, high = _inner(low, closed[0], -math.inf), _inner(high, closed[1], math.inf)
    return torch.ops.aten.hardtanh_backward(gradient, inputs, low, high)


def _inner(end: float, closed: bool, beyond: float) -> float:
    """An end that is left out: itself, or the next number of float32, in which 16 bits are compared, too."""
    number = torch.tensor(end, dtype=torch.float32)
    return float(torch.nextafter(number, torch.full_like(number, beyond)) if closed else number)
