"""Codecs of fixed levels with one scale for each group of columns: a codec of this kind only says its levels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from corank.codecs.base import Codec, TensorSpec, as_stored, check_weight
from corank.codecs.places import picked, places
from corank.codecs.scalar import EXPONENT_BITS, LOWEST_EXPONENT, ScalarCodebook
from corank.errors import ConfigError
from corank.transfer import sent

__all__ = ["ScaledLevels", "by_groups", "check_fields", "group_shape", "least_error_scale"]

_RATIOS = [2.0 ** (step / 8) for step in range(4, -41, -1)]  # of the scale that just holds the largest weight
_OCTAVES = [2.0**step for step in range(1, -7, -1)]
_CHUNK = 1 << 21  # weights searched at once


class ScaledLevels(Codec):
    """``value = scale * level[code]`` with levels that only the codec decides.

    Attributes:
        group: columns that share a scale; 0 for one scale a row (output channel), -1 for one a weight.
        power_of_two_scale: whether scales are powers of two, stored as exponents of 6 bits, so that a value is a
            power of two (or a sum of them) as a whole; else they are of fp16.
    """

    group: int
    power_of_two_scale: bool = False

    @abstractmethod
    def levels(self) -> Tensor:
        """``(L,)`` float32, ascending, ``L`` at most ``2 ** bits``."""

    def thresholds(self) -> Tensor | None:
        """Where one level gives way to the next, ``(L - 1,)``; None for midway."""
        return None

    def fit_scale(self, rows: Tensor) -> Tensor:
        """A scale ``(n, 1)`` for each of the ``rows`` ``(n, C)``: that of least squared error, unless overridden."""
        return least_error_scale(rows, sent(self.levels(), rows.device), self.power_of_two_scale)

    def fit(self, weight: Tensor, gram: Tensor | None = None) -> ScalarCodebook:
        """The codebook for ``weight`` ``(R, C)``; inputs are not looked at."""
        check_weight(weight)
        rows, columns = weight.shape
        return self._codebook(by_groups(weight.detach().float(), self.group, self.fit_scale), rows, columns)

    def stored(self, rows: int, columns: int) -> dict[str, TensorSpec]:
        counts = group_shape(self.group, rows, columns)
        count = counts[0] * counts[1]
        if self.power_of_two_scale:
            return {"exponent": TensorSpec(count, EXPONENT_BITS, False)}
        return {"scale": TensorSpec(count, 16, True)}

    def codebook(self, tensors: Mapping[str, Tensor], rows: int, columns: int) -> ScalarCodebook:
        if self.power_of_two_scale:
            return self._codebook(torch.exp2(tensors["exponent"].float() + LOWEST_EXPONENT), rows, columns)
        return self._codebook(tensors["scale"], rows, columns)

    def _codebook(self, scale: Tensor, rows: int, columns: int) -> ScalarCodebook:
        scale = scale.reshape(group_shape(self.group, rows, columns))
        size = columns if self.group <= 0 else min(self.group, columns)
        thresholds = self.thresholds()
        return ScalarCodebook(
            sent(self.levels(), scale.device),
            scale,
            torch.zeros_like(scale),
            size,
            scale_bits=EXPONENT_BITS if self.power_of_two_scale else 16,
            thresholds=None if thresholds is None else sent(thresholds, scale.device),
        )


def check_fields(codec: Codec, bits: range, group: int, power_of_two_scale: bool = False) -> None:
    """Raises ConfigError unless the fields that such codecs share are sound, ``bits`` being what the codec takes."""
    name = type(codec).__name__
    if type(codec.bits) is not int or codec.bits not in bits:
        some = f"{bits[0]} to {bits[-1]}" if len(bits) > 1 else f"{bits[0]}"
        raise ConfigError(f"bits={codec.bits!r}: {name} takes {some}, e.g. {name}(bits={bits[-1]})")
    if type(group) is not int or group < -1:
        raise ConfigError(f"group={group!r}: a number of columns, 0 (a scale per row) or -1 (per tensor)")
    if not isinstance(power_of_two_scale, bool):
        raise ConfigError(f"power_of_two_scale={power_of_two_scale!r}: true or false")


def group_shape(group: int, rows: int, columns: int) -> tuple[int, int]:
    """``(R, G)`` of the scales of a weight ``(rows, columns)``; ``(1, 1)`` where it has one."""
    if group == -1:
        return 1, 1
    return rows, 1 if group == 0 else -(-columns // min(group, columns))


def by_groups(weight: Tensor, group: int, fit: Callable[[Tensor], Tensor]) -> Tensor:
    """What ``fit`` gives for each group of columns ``(n, size)``, ``(n, 1)`` each, put together to ``(R, G)``."""
    if group == -1:
        return fit(weight.reshape(1, -1))
    size = weight.shape[1] if group == 0 else min(group, weight.shape[1])
    step = max(1, _CHUNK // size)
    parts = [torch.cat([fit(rows) for rows in part.split(step)]) for part in weight.split(size, dim=1)]
    return torch.cat(parts, 1)


def least_error_scale(rows: Tensor, levels: Tensor, power_of_two: bool = False) -> Tensor:
    """The scale ``(n, 1)`` of least squared error for each row of ``(n, C)``, as it is stored.

    Scales from 1.4 times to a thirtieth of the one that just holds the largest weight are tried; from each, the
    codes that are closest give the scale that is best for them. Powers of two are tried as they are.
    """
    middles = (levels[1:] + levels[:-1]) / 2
    largest = as_stored(rows.abs().amax(1, keepdim=True) / levels.abs().max())
    if power_of_two:
        largest = torch.exp2(largest.log2().ceil().clamp(max=15))
    best, least = largest, torch.full_like(largest, torch.inf)

    def closest(scale: Tensor) -> Tensor:
        return picked(levels, places(rows / scale, middles))

    for ratio in _OCTAVES if power_of_two else _RATIOS:
        scale = (largest * ratio).clamp(2.0**-24, 2.0**15) if power_of_two else as_stored(largest * ratio)
        level = closest(scale)
        if not power_of_two:
            refit = (rows * level).sum(1, keepdim=True) / level.square().sum(1, keepdim=True)
            scale = torch.where(refit > 0, as_stored(refit), scale)
            level = closest(scale)
        error = (scale * level - rows).square().sum(1, keepdim=True)
        better = error < least
        best, least = torch.where(better, scale, best), torch.where(better, error, least)
    return best
