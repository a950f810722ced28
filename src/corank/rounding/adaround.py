"""AdaRound (arXiv 2004.10568) on one layer, from the second moment of its inputs alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from corank.codecs import Codebook
from corank.errors import ConfigError
from corank.rounding.base import Rounder
from corank.rounding.descent import descend
from corank.rounding.gptq import Gptq
from corank.rounding.walk import Walk, energy_order
from corank.statistics import Gram, LayerStatistics, require

__all__ = ["AdaRound"]

_LOW, _HIGH = -0.1, 1.1  # of the stretched sigmoid (paper, equation 23)
_TOGETHER = 64  # columns of a sweep updated together; changes the speed alone
_SHARPEST, _SOFTEST = 2.0, 20.0  # exponents of the regulariser: from flat in the middle to pushing everywhere


@dataclass(frozen=True)
class AdaRound(Rounder):
    """Learns for every weight whether to go to the value below or above it, all of them at once.

    Each weight sits between its two neighbours at ``h = clamp(1.2 sigmoid(v) - 0.1, 0, 1)``, starting at the float
    weight; Adam moves ``v`` to minimise ``tr((W - W_h) E[x x^T] (W - W_h)^T)`` and a regulariser
    ``sum(1 - |2h - 1|^b)`` that drives ``h`` to 0 or 1 as ``b`` falls from 20 to 2. A row that ends worse than
    rounded to nearest is rounded to nearest. With ``sweeps``, which are no part of the paper, codes may then go beyond
    those two values, and of each row the better of AdaRound's and :class:`~corank.rounding.Gptq`'s codes are taken:
    where inputs are few and much alike, AdaRound can lose twice as much as GPTQ, and elsewhere it loses less.

    Args:
        iterations: steps of Adam; one costs as much as multiplying the weight by the Gram matrix.
        learning_rate: of Adam.
        warm_start: part of the iterations that pass before the regulariser sets in, 0 to 1.
        regularisation: its weight, against errors in units of a row's mean step and an input's mean energy.
        sweeps: walks over the columns afterwards, as those of GPTQ; 0 for AdaRound as published.
    """

    needs = (Gram,)

    iterations: int = 1000
    learning_rate: float = 0.02
    warm_start: float = 0.2
    regularisation: float = 0.5
    sweeps: int = 0

    def __post_init__(self) -> None:
        if type(self.iterations) is not int or self.iterations < 1:
            raise ConfigError(f"AdaRound(iterations={self.iterations!r}): a positive whole number, e.g. 1000")
        if not self.learning_rate > 0 or not self.regularisation > 0:
            raise ConfigError(
                f"AdaRound(learning_rate={self.learning_rate!r}, regularisation={self.regularisation!r}): "
                "both are positive"
            )
        if not 0 <= self.warm_start < 1:
            raise ConfigError(f"AdaRound(warm_start={self.warm_start!r}): from 0 up to less than 1, e.g. 0.2")
        if type(self.sweeps) is not int or self.sweeps < 0:
            raise ConfigError(f"AdaRound(sweeps={self.sweeps!r}): a whole number, 0 for AdaRound as published")

    def comparison_stand_in(self) -> Rounder:
        """GPTQ, which lowers the same error without a gradient step."""
        return Gptq()

    @torch.no_grad()
    def __call__(self, weight: Tensor, codebook: Codebook, statistics: LayerStatistics) -> Tensor:
        gram = require(statistics, Gram, "AdaRound").matrix
        shape = (gram.shape[0], -1, weight.shape[1])
        below, above = codebook.neighbours(weight)
        low, high = codebook.values(below), codebook.values(above)
        # With both ends known a weight's error is linear in its h, and the codec need not be looked at again.
        step = (high - low).reshape(shape)
        offset = (low - weight).reshape(shape)
        # In these units (steps of a row, energy of an input) one learning rate and one regulariser suit every layer.
        unit = step.mean(2, keepdim=True)
        unit = torch.where(unit > 0, unit, 1.0)
        energy = gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp(min=1e-30)
        up = self._learn(step / unit, offset / unit, gram / energy).reshape(weight.shape)
        codes, others = torch.where(up, above, below), [codebook.nearest(weight)]
        if self.sweeps:
            how = Walk(codebook, energy_order(gram), _TOGETHER)
            codes = descend(codes, weight, how, gram, self.sweeps)
            others.insert(0, Gptq(sweeps=self.sweeps)(weight, codebook, statistics))
        for other in others:
            # Row by row, since the trace is a sum over rows; a tie goes to nearest, whose own error is the smaller.
            worse = _lost(codebook.values(codes) - weight, gram) >= _lost(codebook.values(other) - weight, gram)
            codes = torch.where(worse, other, codes)
        return codes

    def _learn(self, step: Tensor, offset: Tensor, gram: Tensor) -> Tensor:
        """True where to go up; ``offset + h * step`` is the error ``(G, R, C)`` of a weight at ``h``."""
        share = (-offset / torch.where(step > 0, step, 1.0)).clamp(0, 1)
        # Finite even for a weight that is a value: the stretch puts shares 0 and 1 at a twelfth and eleven of them.
        latent = torch.logit((share - _LOW) / (_HIGH - _LOW))
        optimizer = torch.optim.Adam([latent], lr=self.learning_rate)
        start = int(self.warm_start * self.iterations)
        for iteration in range(self.iterations):
            sigmoid = latent.sigmoid()
            stretched = sigmoid * (_HIGH - _LOW) + _LOW
            share = stretched.clamp(0, 1)
            # Gradients by hand: d tr(E M E^T) / dE = 2 E M for symmetric M, one product where autograd would take two.
            slope = 2 * ((offset + share * step) @ gram) * step
            if iteration >= start:
                done = (iteration - start) / max(1, self.iterations - start)
                # A large exponent is flat but near 0 and 1, so most weights may still cross the middle at first.
                exponent = _SHARPEST + (_SOFTEST - _SHARPEST) * (1 + math.cos(math.pi * done)) / 2
                distance = 2 * share - 1
                push = 2 * exponent * distance.abs().pow(exponent - 1) * distance.sign()
                slope -= self.regularisation * push
            # Where the clamp cuts off, h does not answer to v.
            inside = (stretched > 0) & (stretched < 1)
            latent.grad = torch.where(inside, slope * sigmoid * (1 - sigmoid) * (_HIGH - _LOW), 0.0)
            optimizer.step()
        # h = 1/2 lies at v = 0, since the stretch is symmetric about it.
        return latent > 0


def _lost(error: Tensor, gram: Tensor) -> Tensor:
    """Output error of each row, ``(G * R, 1)``."""
    stacked = error.reshape(gram.shape[0], -1, error.shape[1])
    return ((stacked @ gram) * stacked).sum(2).reshape(-1, 1)
