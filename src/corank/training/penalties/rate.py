"""The bits of the file in the loss: every code at its price under the layer's running histogram."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from corank.codecs import RateUniform, ScalarCodebook
from corank.errors import ConfigError
from corank.training.penalties.base import Penalty
from corank.training.weights.learned_step import LearnedStepWeight, summed_by_group

if TYPE_CHECKING:
    from corank.training.state import TrainedLayer, TrainingState

__all__ = ["WANTED", "Rate", "prices", "slope"]

WANTED = "rate:wanted"  # what is kept of a training whose bits were set anew on its way
_SLACK = 0.03  # of the rate, below its way down, at which its weight is zero
_RAREST = 2.0**-16  # share that a code which never occurs is priced at


@dataclass(frozen=True)
class Rate(Penalty):
    """``weight * bits``: the mean price of a weight's code, steered so that ``bits`` are met at the end.

    A code of share ``p`` costs ``-log2 p``, which an entropy coder keeps to within a hundredth. Its price does not
    change between thresholds; its gradient is that of the prices drawn as straight lines from level to level, in
    ``w / step``. Shares are averaged over the steps. The idea is that of entropy-penalized training (arXiv 1906.06624)
    and of EC2T; estimator and steering are ours.

    Args:
        bits: mean bits a weight at the end, over the layers that train by learned steps of a RateUniform codec.
        weight: of a bit beside the loss in nats, at the start.
        decay: of the running shares.
        reached: share of the steps after which the rate is to be ``bits``; until then it is led down there.
        pull: how fast the weight follows what the rate is off.
    """

    bits: float = 0.5
    weight: float = 3.0
    decay: float = 0.9
    reached: float = 0.55
    pull: float = 0.1

    name: ClassVar[str] = "rate"

    def __post_init__(self) -> None:
        if type(self.bits) not in (int, float) or not 0.01 <= self.bits <= 8:
            raise ConfigError(f"Rate(bits={self.bits!r}): mean bits a weight, 0.01 to 8, e.g. Rate(0.5)")
        if not (0 < self.weight < math.inf and 0 <= self.decay < 1 and 0 < self.reached <= 1 and 0 <= self.pull < 10):
            raise ConfigError(f"{self!r}: weight above 0, decay below 1, reached in (0, 1], e.g. Rate(0.5, weight=3.0)")

    def __call__(self, state: TrainingState, loss: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=loss.device)
        bits, count = torch.zeros_like(total), 0
        for number, (layer, book) in enumerate(self.priced(state)):
            matrix = layer.matrix
            codes = book.nearest(matrix.detach())
            counts = torch.bincount(codes.flatten(), minlength=book.size).float()
            price = self._price(state, f"rate:{number}", counts / codes.numel())
            total = total + _Prices.apply(matrix, book.scale, replace(book, scale=book.scale.detach()), price)
            bits += counts @ price
            count += matrix.numel()
        if not count:
            raise ConfigError(
                "Rate: no weight trains by LearnedStep, whose codes could be priced; recipe 'rate' has it"
            )
        now = bits / count
        factor = self._factor(state, float(now))
        state.measured["rate"] = float(now)
        return factor * (now + total / count)

    @staticmethod
    def priced(state: TrainingState) -> Iterator[tuple[TrainedLayer, ScalarCodebook]]:
        """The layers whose codes have a price, and their codebooks: learned steps of whole levels, edges left out."""
        for _, layer, weight in state.weights():
            if isinstance(weight, LearnedStepWeight) and isinstance(weight.codec, RateUniform):
                yield layer, weight.book()

    @staticmethod
    def not_zero(layer: TrainedLayer, book: ScalarCodebook) -> tuple[Tensor, Tensor]:
        """Which weights ``(R, C)`` have another code than zero's, and all magnitudes in levels."""
        level = book.in_levels(layer.matrix.detach())
        return level.round() != 0, level.abs()

    def _price(self, state: TrainingState, name: str, share: Tensor) -> Tensor:
        """``(L,)`` bits, of codes of now these shares; the running shares move on, once a step."""
        if not state.first:
            return prices(state.kept[name])
        kept = state.kept.get(name)
        share = share if kept is None else self.decay * kept + (1 - self.decay) * share
        state.kept[name] = share
        return prices(share)

    def _factor(self, state: TrainingState, now: float) -> float:
        """The weight of a bit at this step; what is off from the way down adds to it."""
        first = state.kept.setdefault("rate:first", torch.tensor(now, dtype=torch.float64))
        kept = state.kept.get("rate:log weight")
        total = math.log(self.weight) if kept is None else float(kept)
        way = min(1.0, state.place / self.reached)
        bits = float(state.kept.get(WANTED, self.bits))
        wanted = math.exp((1 - way) * math.log(max(float(first), bits)) + way * math.log(bits))
        off = math.log(max(now, 1e-6) / wanted)
        if state.first:
            total = min(max(total + self.pull * off, math.log(self.weight) - 12), math.log(self.weight) + 6)
        state.kept["rate:log weight"] = torch.tensor(total, dtype=torch.float64)
        # Below the way nothing pulls: an optimizer that divides gradients by their size follows a small one, too, and
        # what has become zero does not come back.
        factor = math.exp(min(total + off, math.log(self.weight) + 6)) * min(1.0, max(0.0, 1 + off / _SLACK))
        state.measured["weight of a bit"] = factor
        return factor


def prices(share: Tensor) -> Tensor:
    """Bits ``(L,)`` of codes of these shares ``(L,)``."""
    return -share.clamp(min=_RAREST).log2()


def slope(price: Tensor, place: Tensor) -> Tensor:
    """The slope, in bits a level, of the prices ``(L,)`` drawn as straight lines, at ``place`` in codes."""
    below = place.floor().clamp_(0, len(price) - 2).int()  # half of long(): nothing here is small beside the weight
    return price.diff().index_select(0, below.flatten()).view_as(place)


class _Prices(torch.autograd.Function):
    """Zero, whose gradient is that of all prices; nothing but the weight is kept for it."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor, book: ScalarCodebook, price: Tensor) -> Tensor:
        ctx.save_for_backward(weight, scale, price)
        ctx.book = book
        return torch.zeros((), dtype=torch.float32, device=weight.device)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (weight, scale, price), book = ctx.saved_tensors, ctx.book
        place = book.in_levels(weight) - book.levels[0]  # in codes: levels are whole
        inside = (place >= 0) & (place <= book.size - 1)
        own = slope(price, place).mul_(inside).mul_(grad_outputs[0]).div_(book.spread(book.scale, weight.shape[1]))
        moved = (own * weight).neg_().div_(book.spread(book.scale, weight.shape[1]))
        return own, summed_by_group(moved, scale, book.group_size), None, None
