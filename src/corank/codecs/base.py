"""What a codec and a codebook owe. ``R`` rows, ``C`` columns, ``G`` groups of columns, ``L`` levels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import torch
from torch import Tensor

from corank.errors import ConfigError

__all__ = ["SMALLEST_SCALE", "Codebook", "Codec", "TensorSpec", "as_stored", "check_weight", "midway"]

SMALLEST_SCALE, _LARGEST_SCALE = 2.0**-24, 65504.0  # of the positive fp16


@dataclass(frozen=True)
class TensorSpec:
    """One stored tensor: ``count`` numbers of ``bits`` bits."""

    count: int
    bits: int
    scale: bool  # fp16, kept as its own dtype whatever a module is cast to; else whole numbers, packed


class Codebook(ABC):
    """A codec fitted to one weight: the values each weight may take."""

    @property
    @abstractmethod
    def code_bits(self) -> int:
        """Bits of one stored code."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Codes that have a value: ``0`` to ``size - 1``."""

    @abstractmethod
    def nearest(self, weight: Tensor) -> Tensor:
        """Codes ``(R, C)`` uint8 of the values closest to ``weight`` ``(R, C)``."""

    @abstractmethod
    def neighbours(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of the values just below and just above each weight (equal at the ends of the range)."""

    @abstractmethod
    def values(self, codes: Tensor) -> Tensor:
        """Values ``(R, C)`` float32 of codes ``(R, C)``; differentiable in what is stored in floating point."""

    def rounded(self, weight: Tensor) -> Tensor:
        """The values ``(R, C)`` closest to ``weight`` ``(R, C)``: those of the codes that :meth:`nearest` gives."""
        return self.values(self.nearest(weight))

    @abstractmethod
    def columns(self, index: Tensor) -> Codebook:
        """The codebook of the columns ``index`` ``(k,)``, for methods that walk the columns."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What must be stored beside the codes, by the names of :meth:`Codec.stored`."""

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
    def fit(self, weight: Tensor, gram: Tensor | None = None) -> Codebook:
        """The codebook for ``weight`` ``(R, C)``, float.

        Args:
            weight: of a layer, its channel groups' rows one after the other.
            gram: ``(G, C, C)``, second moment of the inputs of each channel group, where it is known; a codec may
                weigh errors by it.

        Raises:
            ConfigError: if the weight is not a finite float matrix.
        """

    @abstractmethod
    def stored(self, rows: int, columns: int) -> dict[str, TensorSpec]:
        """What a weight of that shape stores beside its codes, known before anything is fitted: at most, where only a
        codec with its measured size knows."""

    @abstractmethod
    def codebook(self, tensors: Mapping[str, Tensor], rows: int, columns: int) -> Codebook:
        """The codebook of a weight of that shape that stored ``tensors``: the inverse of :meth:`Codebook.tensors`.

        Args:
            tensors: flat, by the names of :meth:`stored`; floating point as float32, whole numbers as uint8.
        """

    @property
    def checked_tensors(self) -> tuple[str, ...]:
        """Names of what it stores that not every number is sound for; :meth:`check` looks at them."""
        return ()

    def with_measured_size(self, codebook: Codebook) -> Codec:
        """The same codec, saying how much ``codebook`` stores where that is known only once it is fitted."""
        return self

    def check(self, tensors: Mapping[str, Tensor], rows: int, columns: int) -> None:
        """Looks at the :attr:`checked_tensors` of a weight of that shape, ``tensors`` being as in :meth:`codebook`.

        Raises:
            ArtifactError: for contents that :meth:`codebook` could not read.
        """
        return None

    def size_bits(self, rows: int, columns: int) -> int:
        """Bits that a weight of that shape will take, codes and codebook together."""
        beside = sum(slot.count * slot.bits for slot in self.stored(rows, columns).values())
        return rows * columns * self.bits + beside

    def for_network(self, weights: Iterable[Tensor]) -> Codec:
        """The codec for layers of these weights ``(..., R, C)``: another one where they share what is found in all."""
        return self

    def with_bits(self, bits: int) -> Self:
        """The same codec with codes of another width.

        Raises:
            ConfigError: for a width that it does not have.
        """
        return replace(cast(Any, self), bits=bits)

    def for_bits(self, bits: int) -> Self:
        """The same codec for so many bits a weight: those of a code, unless the file takes fewer than codes are wide.

        Raises:
            ConfigError: for a number that it does not have.
        """
        return self.with_bits(bits)


def as_stored(scale: Tensor) -> Tensor:
    """Positive scales as fp16 holds them, kept inside its range."""
    return scale.clamp(SMALLEST_SCALE, _LARGEST_SCALE).to(torch.float16).float()


def midway(levels: Tensor) -> Tensor:
    """Thresholds ``(..., L - 1)`` between ascending levels ``(..., L)``; none is reached where the last one repeats."""
    return torch.where(levels[..., 1:] > levels[..., :-1], (levels[..., 1:] + levels[..., :-1]) / 2, torch.inf)


def check_weight(weight: Tensor) -> None:
    """Raises ConfigError unless ``weight`` is a finite, non-empty float matrix ``(R, C)``."""
    if weight.dim() != 2 or not weight.is_floating_point() or weight.numel() == 0:
        raise ConfigError(
            f"a weight is a non-empty float matrix (R, C), not {tuple(weight.shape)} {weight.dtype}; "
            "reshape it with Geometry.of(layer).to_matrix(layer.weight).flatten(0, 1)"
        )
    if not bool(torch.isfinite(weight).all()):
        raise ConfigError("the weight holds NaN or infinite values; corank.quantize needs finite weights")
