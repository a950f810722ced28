"""What a codec and a codebook owe. ``R`` rows, ``C`` columns, ``G`` groups of columns, ``L`` levels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from corank.errors import ConfigError

__all__ = ["Codebook", "Codec", "ScalarCodebook", "check_weight"]


class Codebook(ABC):
    """A codec fitted to one weight: the values each weight may take."""

    @property
    @abstractmethod
    def code_bits(self) -> int:
        """Bits of one stored code."""

    @abstractmethod
    def nearest(self, weight: Tensor) -> Tensor:
        """Codes ``(R, C)`` uint8 of the values closest to ``weight`` ``(R, C)``."""

    @abstractmethod
    def neighbours(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of the values just below and just above each weight (equal at the ends of the range)."""

    @abstractmethod
    def values(self, codes: Tensor) -> Tensor:
        """Values ``(R, C)`` float32 of codes ``(R, C)``; differentiable in scale and offset."""

    @abstractmethod
    def columns(self, index: Tensor) -> Codebook:
        """The codebook of the columns ``index`` ``(k,)``, for methods that walk the columns."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What must be stored beside the codes."""

    @property
    @abstractmethod
    def size_bits(self) -> int:
        """Bits of what must be stored beside the codes."""


class Codec(ABC):
    """A description of which values weights may take: numbers only, no tensors, no state.

    Attributes:
        bits: of one code.
    """

    bits: int

    @abstractmethod
    def fit(self, weight: Tensor) -> Codebook:
        """The codebook for ``weight`` ``(R, C)``, float.

        Raises:
            ConfigError: if the weight is not a finite float matrix.
        """

    @abstractmethod
    def size_bits(self, rows: int, columns: int) -> int:
        """Bits that a weight of that shape will take, codes and codebook together."""


@dataclass(frozen=True)
class ScalarCodebook(Codebook):
    """``value = scale * (level[code] - offset)``; every scalar codec shares this.

    Attributes:
        levels: ``(L,)`` float32, ascending.
        scale: ``(R, G)`` float32 holding values that fp16 can hold, since that is how scales are stored.
        offset: ``(R, G)`` float32, multiples of ``offset_step``, in units of a level.
        group_size: columns that share a scale.
        offset_bits: bits of one stored offset; 0 where every offset is zero by construction.
        offset_step: what one stored unit of an offset stands for.
    """

    levels: Tensor
    scale: Tensor
    offset: Tensor
    group_size: int
    offset_bits: int = 0
    offset_step: float = 1.0

    @property
    def code_bits(self) -> int:
        return max(1, (len(self.levels) - 1).bit_length())

    @property
    def size_bits(self) -> int:
        return self.scale.numel() * (16 + self.offset_bits)

    def nearest(self, weight: Tensor) -> Tensor:
        middles = (self.levels[1:] + self.levels[:-1]) / 2
        return torch.bucketize(self._in_levels(weight).contiguous(), middles).to(torch.uint8)

    def neighbours(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        above = torch.bucketize(self._in_levels(weight).contiguous(), self.levels)
        top = len(self.levels) - 1
        below = (above - 1).clamp(0, top)
        return below.to(torch.uint8), above.clamp(0, top).to(torch.uint8)

    def values(self, codes: Tensor) -> Tensor:
        columns = codes.shape[1]
        return self.spread(self.scale, columns) * (self.levels[codes.long()] - self.spread(self.offset, columns))

    def columns(self, index: Tensor) -> ScalarCodebook:
        if self.scale.shape[1] == 1:
            return self
        group = index.div(self.group_size, rounding_mode="floor")
        return replace(self, scale=self.scale[:, group], offset=self.offset[:, group], group_size=1)

    def tensors(self) -> dict[str, Tensor]:
        scale = {"scale": self.scale.to(torch.float16)}
        return scale if not self.offset_bits else {**scale, "offset": (self.offset / self.offset_step).to(torch.uint8)}

    def _in_levels(self, weight: Tensor) -> Tensor:
        columns = weight.shape[1]
        return weight / self.spread(self.scale, columns) + self.spread(self.offset, columns)

    def spread(self, values: Tensor, columns: int) -> Tensor:
        if values.shape[1] in (1, columns):
            return values
        return values.repeat_interleave(self.group_size, dim=1)[:, :columns]


def check_weight(weight: Tensor) -> None:
    """Raises ConfigError unless ``weight`` is a finite, non-empty float matrix ``(R, C)``."""
    if weight.dim() != 2 or not weight.is_floating_point() or weight.numel() == 0:
        raise ConfigError(
            f"a weight is a non-empty float matrix (R, C), not {tuple(weight.shape)} {weight.dtype}; "
            "reshape it with Geometry.of(layer).to_matrix(layer.weight).flatten(0, 1)"
        )
    if not bool(torch.isfinite(weight).all()):
        raise ConfigError("the weight holds NaN or infinite values; corank.quantize needs finite weights")
