"""S3 (arXiv 2107.03453): sign, sparsity and shift, each the sign of a latent of its own; 3 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from corank.codecs import Codec, S3Shift
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

__all__ = ["S3Latents", "S3Weight"]

_SIZE = 2.75**0.5 / 4  # root mean square of the levels where every bit is a fair coin
_FAINTEST = -2.0  # octaves below the smallest power that a weight at zero is taken to be, less one


@dataclass(frozen=True)
class S3Latents(WeightTraining):
    """``w = u sigma p 2^S``, ``S = b_1 (b_2 + 1)``, from latents ``w_s, w_v, t_1, t_2``; ``u`` a fixed power of two.

    ``sigma = sign(w_s)``, ``p = [w_v >= 0]``, ``b_j = [t_j >= 0]``; backward the true derivative of that, signs and
    bits by the identity. :class:`corank.training.penalties.ShiftZero` keeps weights from zero.

    Args:
        bits: 3.
        group: columns that share a ``u``; -1 for one a weight, 0 for one a row.
        octave: of the latents that stand for trained weights, which is our extension: what one more in the exponent is.
    """

    starts: ClassVar[tuple[str, ...]] = ("scratch", "codes", "float")
    bits: int = 3
    group: int = -1
    octave: float = 0.1

    def __post_init__(self) -> None:
        S3Shift(self.bits, self.group)
        if not self.octave > 0:
            raise ConfigError(f"octave={self.octave!r}: above zero, e.g. S3Latents()")

    @property
    def stored(self) -> S3Shift:
        return S3Shift(self.bits, self.group, power_of_two_scale=True)

    def with_codec(self, codec: Codec) -> Self:
        if codec != self.stored:
            raise ConfigError(f"{type(self).__name__} ends in {self.stored}, not in {codec}")
        return self

    def start(self, given: WeightStart) -> tuple[TrainableWeight, Tensor]:
        shape = tuple(given.weight.shape)
        if given.fresh:
            # N(0, 2 / (k^2 C_out)) of the authors' code, of a matrix that knows k^2 C_in only.
            latents = drawn({"signs": shape, "present": shape, "shifts": (2, *shape)}, (2 / shape[1]) ** 0.5, given)
            book = fresh_book(self.stored, given.weight, _SIZE)
        else:
            book, codes = book_of(self.stored, given)
            place = codes.float() - 3
            size = octaves(book, (place.abs() - 1).clamp(min=0), given.weight)
            size = torch.where(place == 0, torch.full_like(size, _FAINTEST), size)
            sigma = torch.where(torch.where(place == 0, given.weight, place) < 0, -1.0, torch.ones_like(size))
            latents = {
                "signs": sigma * (size - 2).exp2(),
                "present": size + 1,
                "shifts": torch.stack([size - 0.5, size - 1.5]),
            }
            latents = {name: self.octave * latent for name, latent in latents.items()}
        running = S3Weight(self.stored, book, latents)
        return running, running.coded(given.weight).decode()


class S3Weight(ShiftLatentsWeight):
    """See :class:`S3Latents`."""

    latents = ("signs", "present", "shifts")

    def parts(self) -> tuple[Tensor, Tensor]:
        first, second = map(bit, self.get_parameter("shifts"))
        sigma, present = sign(self.get_parameter("signs")), bit(self.get_parameter("present"))
        exponent = first * (second + 1)
        codes = 3 + (sigma * present * (exponent + 1)).detach()
        return codes.to(torch.uint8), sigma * present * exponent.exp2() / 4
