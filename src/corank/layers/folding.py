"""Norms folded into the layers before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from corank.errors import ModelError
from corank.layers.observe import names_of
from corank.layers.replace import replace_module
from corank.matrix import Geometry

__all__ = ["agree", "fold_all", "fold_norm", "is_foldable", "remove_norm"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_NORMS_WITH_ACTIVATION = "BatchNormAct2d"  # timm's: a norm whose forward() also drops and activates
_ALLOWED = {torch.float16: 4e-3, torch.bfloat16: 3e-2}  # difference by folding, of the outputs' norm; else 2e-3


def fold_norm(layer: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Folds a norm's running statistics and affine into the layer before it, in place.

    Returns:
        The weight, in the layer's own shape, and the bias as they were computed: in float32, also where the layer holds
        them in half precision, or in float64.
    """
    geometry = Geometry.of(layer)
    mean, variance = norm.running_mean, norm.running_var
    if not isinstance(mean, Tensor) or not isinstance(variance, Tensor):
        raise ModelError("a norm without running statistics cannot be folded")
    own = layer.get_parameter("weight").detach()
    exact = torch.promote_types(own.dtype, torch.float32)

    def affine(value: object, otherwise: float) -> Tensor:
        return value.detach().to(exact) if isinstance(value, Tensor) else torch.full_like(mean, otherwise, dtype=exact)

    gain = (variance.to(exact) + float(norm.eps)).rsqrt()  # pyright: ignore[reportArgumentType]
    if isinstance(norm.weight, Tensor):
        gain = gain * norm.weight.detach().to(exact)
    groups, rows, _ = geometry.matrix_shape
    weight = geometry.from_matrix(geometry.to_matrix(own.to(exact)) * gain.reshape(groups, rows, 1)).contiguous()
    bias = (affine(layer.bias, 0.0) - mean.to(exact)) * gain + affine(norm.bias, 0.0)
    layer._parameters["weight"] = nn.Parameter(weight.to(own.dtype), requires_grad=False)
    layer._parameters["bias"] = nn.Parameter(bias.to(own.dtype), requires_grad=False)
    return weight, bias


def remove_norm(model: nn.Module, norm: nn.Module) -> None:
    """Puts an ``Identity`` (or what else the norm did) where a folded norm stood.

    Raises:
        ModelError: for a module that is never folded.
    """
    if not is_foldable(norm):
        raise ModelError(f"a {type(norm).__name__} is no norm that is folded")
    if type(norm).__name__ == _NORMS_WITH_ACTIVATION:
        rest: nn.Module = nn.Sequential(norm.drop, norm.act)  # pyright: ignore[reportArgumentType]
    else:
        rest = nn.Identity()
    replace_module(model, norm, rest.train(norm.training))


def is_foldable(norm: nn.Module) -> bool:
    return type(norm) in _NORMS or type(norm).__name__ == _NORMS_WITH_ACTIVATION


def fold_all(trial: nn.Module, pairs: Sequence[tuple[nn.Module, nn.Module, str]]) -> dict[str, tuple[Tensor, Tensor]]:
    """Folds each norm into its layer; by layer, what was computed where the layer rounds it."""
    names, unrounded = names_of(trial), {}
    for layer, norm, _ in pairs:
        weight, bias = fold_norm(layer, norm)
        if weight.dtype != layer.get_parameter("weight").dtype:
            unrounded[names[id(layer)][0]] = weight, bias
        remove_norm(trial, norm)
    return unrounded


def agree(expected: Any, given: Any) -> bool:
    pairs = zip(tree_leaves(expected), tree_leaves(given), strict=True)
    for one, other in pairs:
        if isinstance(one, Tensor) and one.is_floating_point():
            scale = one.norm().clamp(min=1e-12)
            allowed = _ALLOWED.get(one.dtype, 2e-3)
            if not bool(torch.isfinite(other).all()) or bool((one - other).norm() > allowed * scale):
                return False
    return True
