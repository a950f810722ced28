"""How much torch's operations stretch what they are given: Lipschitz constants in the Euclidean norm of one sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from corank.matrix import Geometry
from corank.operators import norm_bound

__all__ = ["Unbounded", "factor_of"]

Bound = Callable[[object], float]
Rule = Callable[[dict[str, Any], Bound, Any], float]

# At most 1: they drop, move or repeat nothing twice, or are functions of single numbers whose slope is at most 1.
_KEEPING = (
    "relu", "hardtanh", "clamp", "clamp_min", "clamp_max", "tanh", "sigmoid", "hardsigmoid", "softplus", "abs", "neg",
    "round", "sin", "cos", "hardshrink", "softshrink", "threshold", "softmax", "_softmax", "amax", "amin",
    "view", "_unsafe_view", "reshape", "_reshape_alias", "permute", "transpose", "t", "slice", "select", "narrow",
    "clone", "contiguous", "detach", "alias", "unsqueeze", "squeeze", "constant_pad_nd", "split", "split_with_sizes",
    "chunk", "unbind", "as_strided", "roll", "flip", "copy_", "copy", "lift_fresh", "pixel_shuffle", "pixel_unshuffle",
    "_to_copy", "channel_shuffle", "unsafe_chunk", "unsafe_split", "dropout", "relu6", "logsigmoid", "diagonal",
)  # fmt: skip
_SLOPES = {"gelu": 1.13, "silu": 1.1, "hardswish": 1.5, "mish": 1.09}  # rounded up


class Unbounded(Exception):
    """Why an operation has no bound."""


def factor_of(func: Any, called: tuple[Any, Any], bound: Bound, given: Any) -> float:
    """The bound of what an operation gave.

    Args:
        func: of torch's operators.
        called: its arguments and named arguments.
        bound: of each tensor; 0 for what does not hang on the input.
        given: what it gave.

    Raises:
        Unbounded: where there is none, or none is known.
    """
    schema = func._schema
    name = schema.name.removeprefix("aten::")
    plain = name.removesuffix("_") if name not in ("copy_",) else name
    args, named = called
    by_name = {one.name: value for one, value in zip(schema.arguments, args, strict=False)} | dict(named)
    if plain in _KEEPING:
        return max(bound(one) for one in [*by_name.values(), *_listed(by_name)])
    if plain in _SLOPES:
        return _SLOPES[plain] * bound(by_name["self"])
    if plain in _RULES:
        return _RULES[plain](by_name, bound, given)
    if "attention" in name:
        raise Unbounded("dot-product attention multiplies tensors that hang on the input, and has no bound")
    raise Unbounded(f"no bound is known here of {name}")


def _listed(by_name: dict[str, Any]) -> list[Any]:
    return [one for value in by_name.values() if isinstance(value, (list, tuple)) for one in value]


def _number(value: Any) -> float:
    """The largest size of a constant."""
    return float(value.detach().abs().max()) if isinstance(value, Tensor) else abs(float(value))


def _spread(part: Any, given: Any) -> float:
    """What broadcasting multiplies the norm of one operand by."""
    return math.sqrt(given.numel() / part.numel()) if isinstance(part, Tensor) and part.numel() else 1.0


def _sum(by_name: dict[str, Any], bound: Bound, given: Any) -> float:
    one, other, times = by_name["self"], by_name["other"], _number(by_name.get("alpha", 1))
    return bound(one) * _spread(one, given) + times * bound(other) * _spread(other, given)


def _product(by_name: dict[str, Any], bound: Bound, given: Any) -> float:
    one, other = by_name["self"], by_name["other"]
    if bound(one) and bound(other):
        raise Unbounded("it multiplies two tensors that both hang on the input")
    moving, constant = (one, other) if bound(one) else (other, one)
    return bound(moving) * _spread(moving, given) * _number(constant)


def _quotient(by_name: dict[str, Any], bound: Bound, given: Any) -> float:
    one, other = by_name["self"], by_name["other"]
    if bound(other):
        raise Unbounded("it divides by what hangs on the input")
    least = float(other.detach().abs().min()) if isinstance(other, Tensor) else abs(float(other))
    if not least:
        raise Unbounded("it divides by 0")
    return bound(one) * _spread(one, given) / least


def _joined(by_name: dict[str, Any], bound: Bound, given: Any) -> float:
    return math.sqrt(sum(bound(one) ** 2 for one in _listed(by_name)))


def _mean(by_name: dict[str, Any], bound: Bound, given: Any) -> float:
    return bound(by_name["self"]) * math.sqrt(given.numel() / by_name["self"].numel())


def _total(by_name: dict[str, Any], bound: Bound, given: Any) -> float:
    return bound(by_name["self"]) * math.sqrt(by_name["self"].numel() / given.numel())


def _expanded(by_name: dict[str, Any], bound: Bound, given: Any) -> float:
    return bound(by_name["self"]) * _spread(by_name["self"], given)


def _adaptive_mean(by_name: dict[str, Any], bound: Bound, given: Any) -> float:
    """Windows that do not overlap are means; others count an input several times."""
    inputs, outputs = by_name["self"].shape[-2:], given.shape[-2:]
    if all(size % out == 0 for size, out in zip(inputs, outputs, strict=True)):
        return _mean(by_name, bound, given)
    return bound(by_name["self"]) * 2.0 ** (len(outputs) / 2)


def _pooled(by_name: dict[str, Any], bound: Bound, given: Any) -> float:
    """An input that is read by several windows may be the largest (or part of the mean) of each."""
    kernel = by_name["kernel_size"]
    stride = by_name.get("stride") or kernel
    dilation = by_name.get("dilation", [1]) or [1]
    axes = len(kernel)
    sizes = zip(kernel, (list(stride) * axes)[:axes], (list(dilation) * axes)[:axes], strict=True)
    return bound(by_name["self"]) * math.sqrt(math.prod(math.ceil(size / step) for size, step, _ in sizes))


def _leaky(by_name: dict[str, Any], bound: Bound, given: Any) -> float:
    slopes = [1.0, *(_number(by_name[key]) for key in ("negative_slope", "alpha", "scale") if key in by_name)]
    return bound(by_name["self"]) * math.prod(max(1.0, slope) for slope in slopes)


def _channel_slopes(by_name: dict[str, Any], bound: Bound, given: Any) -> float:
    return bound(by_name["self"]) * max(1.0, _number(by_name["weight"]))


def _batch_norm(by_name: dict[str, Any], bound: Bound, given: Any) -> float:
    if by_name.get("training"):
        raise Unbounded("a batch norm by the batch's own statistics is no function of one sample")
    gain = (by_name["running_var"] + by_name.get("eps", by_name.get("epsilon", 1e-5))).rsqrt()
    weight = by_name.get("weight")
    return bound(by_name["input"]) * _number(gain if weight is None else gain * weight)


def _own_norm(by_name: dict[str, Any], bound: Bound, given: Any) -> float:
    """Layer and group norms: the flattest input there could be is stretched by one over the root of epsilon."""
    weight = by_name.get("weight")
    return bound(by_name["input"]) * (1.0 if weight is None else _number(weight)) / math.sqrt(by_name["eps"])


def _matrix(by_name: dict[str, Any], bound: Bound, given: Any) -> float:
    """A product with a constant matrix, and a constant that is added."""
    one, other = (by_name[key] for key in (("mat1", "mat2") if "mat1" in by_name else ("self", "mat2")))
    if bound(one) and bound(other):
        raise Unbounded("it multiplies two matrices that both hang on the input, as attention does")
    moving, constant = (one, other) if bound(one) else (other, one)
    added = bound(by_name["self"]) if "mat1" in by_name else 0.0
    return added + bound(moving) * float(torch.linalg.matrix_norm(constant.detach().double(), 2).max())


def _convolution(by_name: dict[str, Any], bound: Bound, given: Any) -> float:
    """One that a module's own code runs."""
    inputs, weight = by_name["input"], by_name["weight"]
    if bound(weight):
        raise Unbounded("its kernel hangs on the input")
    padding = tuple((int(side), int(side)) for side in by_name["padding"])
    geometry = Geometry(
        tuple(weight.shape), by_name["groups"], tuple(weight.shape[2:]), tuple(by_name["stride"]), padding,
        tuple(by_name["dilation"]), tuple(by_name["output_padding"]), "zeros", by_name["transposed"],
    )  # fmt: skip
    return bound(inputs) * norm_bound(geometry, weight, tuple(inputs.shape[1:]))


_RULES: dict[str, Rule] = {
    "add": _sum, "sub": _sum, "rsub": _sum, "mul": _product, "div": _quotient, "cat": _joined, "stack": _joined,
    "mean": _mean, "sum": _total, "expand": _expanded, "repeat": _expanded, "_adaptive_avg_pool2d": _adaptive_mean,
    "max_pool2d_with_indices": _pooled, "max_pool1d_with_indices": _pooled, "max_pool3d_with_indices": _pooled,
    "avg_pool1d": _pooled, "avg_pool2d": _pooled, "avg_pool3d": _pooled, "max_pool2d": _pooled,
    "leaky_relu": _leaky, "elu": _leaky, "celu": _leaky, "_prelu_kernel": _channel_slopes,
    "native_batch_norm": _batch_norm, "_native_batch_norm_legit_no_training": _batch_norm,
    "cudnn_batch_norm": _batch_norm, "miopen_batch_norm": _batch_norm, "batch_norm": _batch_norm,
    "native_layer_norm": _own_norm, "native_group_norm": _own_norm,
    "mm": _matrix, "addmm": _matrix, "bmm": _matrix, "convolution": _convolution,
}  # fmt: skip
