"""A weight's formula without what is between its steps: the backward pass computes it again (arXiv 1604.06174)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["forgetful"]


def forgetful(way: nn.Module, weight: Tensor) -> Tensor:
    """``way(weight)``, of which the backward pass keeps ``weight`` and the parameters of ``way`` alone.

    Gradients, of first and second order, are those of ``way(weight)``: it must draw nothing and change nothing.
    """
    own = tuple(way.parameters())
    if not (torch.is_grad_enabled() and any(one.requires_grad for one in (weight, *own))):
        return way(weight)
    return _Again.apply(way, weight, *own)


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, way: nn.Module, *tensors: Tensor) -> Tensor:
        ctx.way = way
        ctx.save_for_backward(*tensors)
        return way(tensors[0])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        tensors, wanted, twice = ctx.saved_tensors, ctx.needs_input_grad[1:], torch.is_grad_enabled()
        asked = [one for one, needed in zip(tensors, wanted, strict=True) if needed]
        with torch.enable_grad():
            again = ctx.way(tensors[0])
            found = torch.autograd.grad(again, asked, grad_outputs, create_graph=twice, allow_unused=True)
        left = iter(found)
        return None, *(next(left) if needed else None for needed in wanted)
