"""A coded weight: codes and the codebook that reads them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from corank.codecs import Codebook

__all__ = ["CodedWeight"]


@dataclass(frozen=True)
class CodedWeight:
    """``codes`` ``(R, C)`` uint8 and the :class:`~corank.codecs.Codebook` that gives them values."""

    codes: Tensor
    codebook: Codebook

    def decode(self) -> Tensor:
        """The weight ``(R, C)`` float32."""
        return self.codebook.values(self.codes)
