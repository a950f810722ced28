"""What a coder of symbols owes. ``R`` rows, ``C`` columns, ``L`` levels: how many symbols there may be."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from corank.errors import ArtifactError, ConfigError

__all__ = ["LARGEST_ALPHABET", "SymbolCoder", "entropy"]

LARGEST_ALPHABET = 1 << 16


class SymbolCoder(ABC):
    """Writes a matrix of whole numbers as bytes and reads it back, exactly.

    Coders are frozen dataclasses without tensors. The bytes hold neither the shape nor the number of levels; whoever
    keeps them knows both. A matrix without entries is no bytes. A coder of one's own writes ``_encode`` and
    ``_decode``, which need not check what is checked here.
    """

    def encode(self, symbols: Tensor, levels: int) -> bytes:
        """The bytes of ``symbols``.

        Args:
            symbols: ``(R, C)``, whole numbers from 0 to ``levels - 1``, of any integer dtype.
            levels: 1 to 65536.

        Raises:
            ConfigError: for other symbols or levels, or where the coder's library is missing.
        """
        _check_levels(levels)
        if symbols.dim() != 2 or symbols.is_floating_point() or symbols.is_complex() or symbols.dtype == torch.bool:
            raise ConfigError(
                f"symbols are a matrix (R, C) of whole numbers, not {tuple(symbols.shape)} {symbols.dtype}; "
                "reshape them, e.g. coder.encode(codes.reshape(rows, -1), levels)"
            )
        values = symbols.detach().cpu().numpy()
        if not values.size:
            return b""
        if values.min() < 0 or values.max() >= levels:
            raise ConfigError(
                f"symbols of {values.min()} to {values.max()}: with levels={levels}, 0 to {levels - 1} fit"
            )
        return self._encode(values.astype(np.uint8 if levels <= 256 else np.int64, copy=False), levels)

    def decode(self, data: bytes, shape: tuple[int, int], levels: int) -> Tensor:
        """The symbols ``(R, C)``, uint8 up to 256 levels and int32 above.

        Memory stays within a small multiple of the shape and of ``data``, whatever ``data`` holds. The caller answers
        for the shape.

        Raises:
            ArtifactError: for bytes that are not those of such symbols.
            ConfigError: for a shape or levels that cannot be, or where the coder's library is missing.
        """
        _check_levels(levels)
        if len(shape) != 2 or any(type(size) is not int or size < 0 for size in shape):
            raise ConfigError(f"shape={shape!r}: (rows, columns), whole numbers")
        if not shape[0] * shape[1] and data:
            raise ArtifactError(f"{len(data)} bytes where no symbol is")
        values = self._decode(data, shape, levels) if shape[0] * shape[1] else np.zeros(0, np.uint8)
        # Codes of whole bits hold numbers that are no symbol where levels are no power of two.
        if values.size and int(values.max()) >= levels:
            raise ArtifactError(f"a coded symbol of {int(values.max())} where {levels} levels are")
        return torch.from_numpy(values.astype(np.uint8 if levels <= 256 else np.int32).reshape(shape))

    @abstractmethod
    def _encode(self, values: np.ndarray, levels: int) -> bytes:
        """The bytes of ``values`` ``(R, C)``, at least one, below ``levels``; uint8 up to 256 levels, else int64."""

    @abstractmethod
    def _decode(self, data: bytes, shape: tuple[int, int], levels: int) -> np.ndarray:
        """The values as whole numbers of any dtype, none below 0, as many as the shape (which is not empty) says."""


def _check_levels(levels: int) -> None:
    if type(levels) is not int or not 1 <= levels <= LARGEST_ALPHABET:
        raise ConfigError(f"levels={levels!r}: a coder takes 1 to {LARGEST_ALPHABET} levels")


def entropy(symbols: Tensor, levels: int) -> float:
    """Shannon's entropy of the symbols, in bits each: ``-sum p log2 p`` over their relative frequencies.

    No code of one symbol at a time takes less. One that sees several symbols together, or that adapts, may.
    """
    # Only symbols that occur: 0 log2 0 is 0, in floats NaN. Adding 0.0 turns -0.0, of one symbol alone, to 0.0.
    counts = torch.bincount(symbols.reshape(-1).long(), minlength=levels).double()
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * shares.log2()).sum()) + 0.0
