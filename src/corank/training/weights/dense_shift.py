"""DenseShift (arXiv 2208.09708): signed powers of two without zero, trained as a sign and a chain of bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from corank.codecs import Codec, DenseShift
from corank.errors import ConfigError
from corank.training.weights.base import TrainableWeight, WeightStart, WeightTraining
from corank.training.weights.shift_latents import (
    ShiftLatentsWeight,
    bit,
    book_of,
    drawn,
    fresh_book,
    octaves,
    sign,
)

__all__ = ["DenseShiftLatents", "DenseShiftWeight"]


@dataclass(frozen=True)
class DenseShiftLatents(WeightTraining):
    """``w = u sigma 2^S`` from latents ``w_s, t_1, ..., t_N``, ``N = 2^(bits-1) - 1``, with a fixed power of two ``u``.

    Forward ``sigma = sign(w_s)``, ``b_j = [t_j >= 0]``, ``S_0 = 0``, ``S_j = (S_(j-1) + 1) b_j``, ``S = S_N``. Backward
    ``sigma sqrt(S + 1)`` is differentiated in the place of ``sigma 2^S``, and signs and bits by the identity.

    Args:
        bits: 2 to 4.
        group: columns that share a ``u``; -1 for one a weight, 0 for one a row.
        deviation: of the latents from scratch.
        octave: of the latents that stand for trained weights, which is our extension: what one more in the exponent is.
    """

    starts: ClassVar[tuple[str, ...]] = ("scratch", "codes", "float")
    bits: int = 3
    group: int = -1
    deviation: float = 1e-3
    octave: float = 0.1

    def __post_init__(self) -> None:
        DenseShift(self.bits, self.group)
        if not (self.deviation > 0 and self.octave > 0):
            raise ConfigError(
                f"deviation={self.deviation!r}, octave={self.octave!r}: above zero, e.g. DenseShiftLatents()"
            )

    @property
    def stored(self) -> DenseShift:
        return DenseShift(self.bits, self.group, power_of_two_scale=True)

    def with_codec(self, codec: Codec) -> Self:
        if codec != DenseShift(codec.bits, self.group, power_of_two_scale=True):
            raise ConfigError(f"{type(self).__name__} ends in {self.stored}, not in {codec}")
        return replace(self, bits=codec.bits)

    def start(self, given: WeightStart) -> tuple[TrainableWeight, Tensor]:
        chain = 2 ** (self.bits - 1) - 1
        if given.fresh:
            shape = tuple(given.weight.shape)
            latents = drawn({"signs": shape, "shifts": (chain, *shape)}, self.deviation, given)
            # A bit is on for every other weight, so that P(S = s) = 2^-(s+1), and the last takes what is left.
            square = sum(2.0 ** (2 * s - s - 1) for s in range(chain)) + 2.0 ** (2 * chain - chain)
            book = fresh_book(self.stored, given.weight, square**0.5 / 2**chain)
        else:
            book, codes = book_of(self.stored, given)
            place = codes.float() - chain - 0.5
            size = octaves(book, place.abs() - 0.5, given.weight)
            # The bit j from the end is on where the exponent is above j: an ordinal code of one number.
            ranks = torch.arange(chain - 1, -1, -1, dtype=size.dtype, device=size.device)
            shifts = self.octave * (size - (ranks + 0.5)[:, None, None])
            latents = {"signs": self.octave * place.sign() * (size - chain).exp2(), "shifts": shifts}
        running = DenseShiftWeight(self.stored, book, latents)
        return running, running.coded(given.weight).decode()


class DenseShiftWeight(ShiftLatentsWeight):
    """See :class:`DenseShiftLatents`."""

    latents = ("signs", "shifts")

    def parts(self) -> tuple[Tensor, Tensor]:
        sigma = sign(self.get_parameter("signs"))
        shifts = self.get_parameter("shifts")
        exponent = torch.zeros_like(sigma)
        for latent in shifts:
            exponent = (exponent + 1) * bit(latent)
        codes = sigma.detach() * (exponent.detach() + 0.5) + (len(shifts) + 0.5)
        return codes.to(torch.uint8), sigma * (exponent + 1).sqrt() / 2.0 ** len(shifts)
