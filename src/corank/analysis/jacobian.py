"""A lower bound on how much a network stretches its input: the norms of its Jacobians on samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from corank.errors import ModelError

__all__ = ["jacobian_norms"]

_CLOSE = 1e-4


def jacobian_norms(call: Callable[[Tensor], Any], inputs: Tensor, iterations: int = 30) -> Tensor:
    """The largest singular value of each sample's Jacobian, from below: by products with it and its transpose.

    Both come from backward passes alone: what a backward pass gives is linear in what it is given, so that its own
    backward pass is the product with the Jacobian.

    Args:
        call: the network, in evaluation mode: no sample's output may hang on another's input.
        inputs: ``(N, ...)`` floating.
        iterations: at most.

    Returns:
        ``(N,)``, on the CPU; 0 where the output does not move.

    Raises:
        ModelError: where the network's output has no gradient.
    """
    drawn = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    right = _unit(drawn.to(inputs))
    found = torch.zeros(len(inputs), dtype=inputs.dtype, device=inputs.device)
    with torch.enable_grad():
        moving = inputs.detach().clone().requires_grad_()
        output = _flat(call(moving))
        if not output.requires_grad:
            raise ModelError("the network's output does not hang on its input in a way that has a gradient")
        weights = torch.zeros_like(output, requires_grad=True)
        (back,) = torch.autograd.grad(output, moving, weights, create_graph=True, allow_unused=True)
        if back is None or not back.requires_grad:
            return found.cpu()
        for _ in range(iterations):
            (ahead,) = torch.autograd.grad(back, weights, right, retain_graph=True)
            last, found = found, ahead.flatten(1).norm(dim=1)
            if bool(((found - last) <= _CLOSE * found).all()):
                break
            (right,) = torch.autograd.grad(output, moving, ahead, retain_graph=True)
            right = _unit(right)
    return found.detach().cpu()


def _flat(output: Any) -> Tensor:
    parts = [leaf.flatten(1) for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    if not parts:
        raise ModelError("the network gives no floating tensor")
    return torch.cat(parts, 1)


def _unit(vectors: Tensor) -> Tensor:
    norms = vectors.flatten(1).norm(dim=1).clamp(min=torch.finfo(vectors.dtype).tiny)
    return vectors / norms.reshape(-1, *(1,) * (vectors.dim() - 1))
