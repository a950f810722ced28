"""Attention between signs (BinaryViT, arXiv 2306.16678): queries, keys and values of one bit, probabilities 0 or c.

``N`` images, ``T`` tokens, ``C`` channels, ``H`` heads, ``S`` tokens of keys and values.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.layers import BinaryInputs, HalfParameters, RPReLU, Shortcut
from corank.layers.half import half

__all__ = ["Attention", "OneLevel", "ShiftedSigns", "TokenNorm", "Unit", "as_grid", "attended"]

_START = 0.005


class ShiftedSigns(HalfParameters):
    """``sign(x - shift)`` of each channel, the last axis; ``sign(0) = +1``. Backward ``2 - 2 |x - shift|`` within 1.

    Args:
        channels: how many.
        like: of its dtype and device the shifts are.
    """

    def __init__(self, channels: int, like: Tensor) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels, dtype=like.dtype, device=like.device))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.shift)

    def forward(self, inputs: Tensor) -> Tensor:
        shift = half(self.shift)
        return BinaryInputs(shift.new_ones(()), shift)(inputs)


class OneLevel(HalfParameters):
    """``c clip(round(p / c), 0, 1)`` of probabilities: 0 or ``c``, which is learned and starts at 0.005.

    The gradient of ``p`` is 1 where ``0 <= p / c <= 1``, else 0; that of ``c`` is ``round(p / c) - p / c`` there, and 1
    above. Ours: ``c`` is its start times ``exp`` of what trains, so it stays positive.

    Args:
        like: of its dtype and device the parameter is.
    """

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.growth = nn.Parameter(torch.zeros((), dtype=like.dtype, device=like.device))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.growth)

    def forward(self, probabilities: Tensor) -> Tensor:
        level = _START * half(self.growth).exp()
        trains = torch.is_grad_enabled() and (probabilities.requires_grad or level.requires_grad)
        return _OneLevel.apply(probabilities, level) if trains else _one_level(probabilities, level)


def _one_level(probabilities: Tensor, level: Tensor) -> Tensor:
    return (probabilities / level).round().clamp(0, 1).mul(level)


class _OneLevel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, probabilities: Tensor, level: Tensor) -> Tensor:
        ctx.save_for_backward(probabilities, level)
        return _one_level(probabilities, level)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        (probabilities, level), given = ctx.saved_tensors, grad_outputs[0]
        place = probabilities / level
        inside = (place >= 0) & (place <= 1)
        moved = torch.where(inside, place.round() - place, (place > 1).to(place))
        return given * inside, (given * moved).sum(dtype=torch.float32).to(level)


def attended(heads: tuple[Tensor, Tensor, Tensor], count: int, level: nn.Module) -> Tensor:
    """What tokens read of each other: ``level(softmax(q k^T / sqrt(d))) v`` of each head.

    Args:
        heads: queries ``(N, T, C)``, keys and values ``(N, S, C)``.
        count: H, of which each has ``d = C / H`` channels.
        level: of probabilities ``(N, H, T, S)``.

    Returns:
        ``(N, T, C)``.
    """
    queries, keys, values = (one.unflatten(-1, (count, -1)).transpose(1, 2) for one in heads)
    scores = queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5
    return (level(scores.softmax(-1)) @ values).transpose(1, 2).flatten(-2)


class Unit(nn.Module):
    """The paper's F, ``RPReLU(BN(linear(x)) + shortcut(x))``, of tokens ``(N, T, inputs)``: channels are repeated, or
    means of neighbours, past a layer that has other ones. The signs of a low-bit layer's inputs leave the shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        linear = nn.Linear(inputs, outputs, bias=False)
        self.linear = Shortcut(linear, nn.BatchNorm1d(outputs))
        self.act = RPReLU(outputs, linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.linear(x.flatten(0, 1))).unflatten(0, x.shape[:2])


class Attention(nn.Module):
    """``F(RPReLU(BN(A sign(v)) + q + up(k) + up(v)))`` of tokens ``(N, T, C)``; ``up`` repeats what ``reduction``
    averaged. Not ``binary``: without signs, and A are the probabilities."""

    def __init__(self, width: int, heads: int, reduction: int, binary: bool) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.query, self.key, self.value = Unit(width, width), Unit(width, width), Unit(width, width)
        self.norm, self.out = TokenNorm(width), Unit(width, width)
        like = self.norm.weight
        self.act = RPReLU(width, like)
        self.signs = nn.ModuleList(ShiftedSigns(width, like) if binary else nn.Identity() for _ in range(3))
        self.level = OneLevel(like) if binary else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        pooled = x if self.reduction == 1 else _as_tokens(F.avg_pool2d(as_grid(x), self.reduction))
        q, k, v = self.query(x), self.key(pooled), self.value(pooled)
        of_q, of_k, of_v = (sign(one) for sign, one in zip(self.signs, (q, k, v), strict=True))
        read = self.norm(attended((of_q, of_k, of_v), self.heads, self.level))
        context = (read + q + self._up(k + v)).flatten(0, 1)
        return self.out(self.act(context).unflatten(0, x.shape[:2]))

    def _up(self, tokens: Tensor) -> Tensor:
        if self.reduction == 1:
            return tokens
        return _as_tokens(F.interpolate(as_grid(tokens), scale_factor=float(self.reduction), mode="nearest"))


class TokenNorm(nn.BatchNorm1d):
    """Batch norm of tokens ``(N, T, C)``: over images and tokens, of each channel."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flatten(0, 1)).unflatten(0, input.shape[:2])


def as_grid(tokens: Tensor) -> Tensor:
    """``(N, T, C)`` to ``(N, C, sqrt T, sqrt T)``."""
    side = isqrt(tokens.shape[1])
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def _as_tokens(grid: Tensor) -> Tensor:
    return grid.flatten(2).transpose(1, 2)
