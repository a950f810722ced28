"""Codecs whose levels are found in the weights and stored: a codec of this kind only says how they are found."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from corank.codecs.base import Codebook, Codec, TensorSpec, as_stored, check_weight, midway
from corank.codecs.clusters import SortedSets, compacted
from corank.codecs.levels import Levels
from corank.codecs.row_levels import RowLevels
from corank.codecs.scalar import ScalarCodebook
from corank.errors import ConfigError

__all__ = ["FittedLevels", "check_fitted"]

_CHUNK = 1 << 21  # weights of rows whose levels are found at once


class FittedLevels(Codec):
    """``value = level[code]``, or ``scale * level[code]``, with ``2 ** bits`` levels of fp16 that are found and stored.

    Attributes:
        per: what has levels of its own: "row", "layer", or "network": then the same levels serve every layer that has
            this codec, and a plan holds them as :class:`~corank.codecs.Levels`.
        scaled: levels are in units of each row's root mean square, which is stored; not with ``per="row"``.
        zero: zero is a level and the others are found for the weights that are not zero, for pruned weights.
    """

    per: str
    scaled: bool
    zero: bool

    @abstractmethod
    def find(self, sets: SortedSets, count: int) -> tuple[Tensor, Tensor | None]:
        """``count`` levels ``(B, count)`` for each set, and thresholds ``(B, count - 1)`` where not midway."""

    def fit(self, weight: Tensor, gram: Tensor | None = None) -> Codebook:
        """The codebook for ``weight`` ``(R, C)``."""
        check_weight(weight)
        self._refuse_network()
        weight = weight.detach().float()
        columns = weight.shape[1]
        mass = self.mass(weight, gram)
        if self.per == "row":
            # Rows are independent sets; sorting and sums in float64 take many times the memory of the rows looked at.
            step = max(1, _CHUNK // columns)
            parts = [self._levels(*part) for part in zip(weight.split(step), mass.split(step), strict=True)]
            levels = torch.cat([part[0] for part in parts])
            if all(part[1] is None for part in parts):
                return RowLevels(levels)
            # Rows of one part may have thresholds of their own and those of another none: midway is what none means.
            return RowLevels(levels, torch.cat([midway(one) if own is None else own for one, own in parts]))
        scale = _row_scale(weight) if self.scaled else weight.new_ones(1, 1)
        levels, thresholds = self._levels((weight / scale).reshape(1, -1), mass.reshape(1, -1))
        return self._shared(levels[0], scale, columns, None if thresholds is None else thresholds[0])

    def mass(self, weight: Tensor, gram: Tensor | None) -> Tensor:
        """How much the squared error of each weight ``(R, C)`` counts."""
        return torch.ones_like(weight)

    def for_network(self, weights: Iterable[Tensor]) -> Codec:
        """Itself, or with ``per="network"`` the levels of all weights together, which each layer then has."""
        if self.per != "network":
            return self
        parts = [weight.detach().float().flatten(0, -2) for weight in weights]
        scales = [_row_scale(part) if self.scaled else part.new_ones(1, 1) for part in parts]
        # One set of all weights: in units of their rows' scales no layer's large weights outweigh the others.
        pooled = torch.cat([(part / scale).flatten() for part, scale in zip(parts, scales, strict=True)])[None]
        levels, _ = self._levels(pooled, torch.ones_like(pooled))
        # Repeated levels would only widen the codes.
        values = tuple(levels[0].unique().tolist())
        return Levels(max(1, (len(values) - 1).bit_length()), values, group=0 if self.scaled else -1)

    def stored(self, rows: int, columns: int) -> dict[str, TensorSpec]:
        self._refuse_network()
        count = 1 << self.bits
        levels = {"levels": TensorSpec(count * (rows if self.per == "row" else 1), 16, True)}
        return {"scale": TensorSpec(rows, 16, True), **levels} if self.scaled else levels

    def codebook(self, tensors: Mapping[str, Tensor], rows: int, columns: int) -> Codebook:
        levels = tensors["levels"].reshape(-1, 1 << self.bits)
        if self.per == "row":
            return RowLevels(levels)
        scale = tensors["scale"].reshape(rows, 1) if self.scaled else levels.new_ones(1, 1)
        return self._shared(levels[0], scale, columns, None)

    def _shared(self, levels: Tensor, scale: Tensor, columns: int, thresholds: Tensor | None) -> ScalarCodebook:
        return ScalarCodebook(
            levels,
            scale,
            torch.zeros_like(scale),
            columns,
            scale_bits=16 if self.scaled else 0,
            level_bits=16,
            thresholds=thresholds,
        )

    def _levels(self, sets: Tensor, mass: Tensor) -> tuple[Tensor, Tensor | None]:
        """Levels ``(B, 2 ** bits)`` as they are stored, and thresholds, for each set ``(B, N)``."""
        count = 1 << self.bits
        if self.zero:
            # Pruned weights have a level of their own; with mass they would draw the others' levels to zero.
            mass = mass * (sets != 0)
        found, thresholds = self.find(SortedSets.of(sets, mass), count - self.zero)
        stored = found.clamp(-65504.0, 65504.0).to(torch.float16).float()
        if self.zero:
            stored = torch.cat([stored, torch.zeros_like(stored[:, :1])], 1)
        # Levels that fp16 made equal, repeats of the last aside, or a zero put in at the end: thresholds no longer
        # stand between the levels that they were found for. Midway then, which needs the levels alone.
        again = (stored[:, 1:] <= stored[:, :-1]) & (stored[:, 1:] < stored[:, -1:])
        if self.zero or thresholds is None or bool(again.any()):
            return compacted(stored), None
        margin = 0.01 * stored.diff(dim=1)  # so that a level is its own nearest
        kept = torch.minimum(torch.maximum(thresholds.float(), stored[:, :-1] + margin), stored[:, 1:] - margin)
        return stored, torch.where(margin > 0, kept, torch.inf)

    def _refuse_network(self) -> None:
        if self.per == "network":
            raise ConfigError(
                f'per="network": {type(self).__name__}(...).for_network(weights) gives the codec of one layer; '
                "corank.quantize calls it"
            )


def check_fitted(codec: FittedLevels, least: int = 1) -> None:
    """Raises ConfigError unless the fields that such codecs share are sound; ``least`` is the fewest bits."""
    name = type(codec).__name__
    if type(codec.bits) is not int or not least <= codec.bits <= 8:
        raise ConfigError(f"bits={codec.bits!r}: {name} takes {least} to 8, e.g. {name}(bits=4)")
    if codec.per not in ("row", "layer", "network"):
        raise ConfigError(f"per={codec.per!r}: levels per 'row', 'layer' or 'network'")
    if not isinstance(codec.scaled, bool) or not isinstance(codec.zero, bool):
        raise ConfigError(f"scaled={codec.scaled!r}, zero={codec.zero!r}: true or false")
    if codec.zero and codec.bits == 1:
        raise ConfigError("zero=True takes 2 bits or more: at one bit there would be one other value")
    if codec.scaled and codec.per == "row":
        raise ConfigError('scaled=True has no use with per="row": a row of its own levels needs no scale')


def _row_scale(weight: Tensor) -> Tensor:
    """Root mean square ``(R, 1)`` of each row, as it is stored."""
    return as_stored(weight.square().mean(1, keepdim=True).sqrt())
