"""Random bias initialization of binary networks (arXiv 1909.13446; a reconstruction: its distribution is not known)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from corank.errors import ConfigError
from corank.training.callbacks.base import Callback

if TYPE_CHECKING:
    from corank.training.state import TrainingState

__all__ = ["RandomBias", "active_share"]

_DRAWN = "random-bias:drawn"


@dataclass(frozen=True)
class RandomBias(Callback):
    """Adds draws from ``U(-width, width)`` to the biases of all batch norms before the first step; of a network without
    any, to those of all layers but the last.

    A sign passes gradients of ``|x| <= 1`` alone, as ``htanh`` does; biases that differ make channels differ in how
    much they pass. From scratch biases are zero, and so become the draws. A layer's bias before a norm would be
    cancelled, so norms' own are taken. The draws are the callback's own: nothing else of a run changes.

    Args:
        width: ``b``; 0 changes nothing. 1 is where a sign's gradient ends.
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        if type(self.width) not in (int, float) or not 0 <= self.width <= 100:
            raise ConfigError(f"width={self.width!r}: of the draws, from 0, e.g. RandomBias(width=1.0)")

    def start(self, state: TrainingState) -> None:
        if _DRAWN in state.kept or not self.width:
            return
        norms: list[nn.Module] = [module for module in state.model.modules() if isinstance(module, _BatchNorm)]
        layers = [layer.module for layer in state.layers.values()]
        draws = torch.Generator().manual_seed(state.seed)
        with torch.no_grad():
            for module in norms or layers[:-1]:
                bias = module._parameters.get("bias")
                if bias is not None:
                    drawn = torch.rand(bias.shape, generator=draws, dtype=torch.float32)
                    bias.add_(((2 * drawn - 1) * self.width).to(bias))
        state.kept[_DRAWN] = torch.ones((), dtype=torch.bool)


def active_share(bias: float) -> float:
    """Share of inputs ``x ~ N(bias, 1)`` of a sign that pass a gradient, ``P(|x| <= 1)``: .6827 at no bias."""
    return 0.5 * (math.erf((1 - bias) / math.sqrt(2)) - math.erf((-1 - bias) / math.sqrt(2)))
