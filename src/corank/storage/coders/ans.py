"""Asymmetric numeral systems with an adaptive model, by the library constriction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from corank.errors import ArtifactError, ConfigError
from corank.storage.coders.base import SymbolCoder
from corank.storage.coders.joined import join, joined_levels, most_joined, split

__all__ = ["Ans"]

_FIRST, _LARGEST = 64, 4096  # symbols between two updates of the model


@dataclass(frozen=True)
class Ans(SymbolCoder):
    """Entropy coding to a small part of a bit: asymmetric numeral systems (Duda et al. 2015) by ``constriction``.

    The model is learned on the way and not stored: after 64, 128, 256, ... and then every 4096 symbols each symbol's
    probability becomes ``(times seen + 1/2) / (all seen + L/2)``, the estimate of Krichevsky and Trofimov (1981).
    Symbols are single or joined to bytes as :class:`Huffman` may; the smaller is kept.

    Bytes: how many are joined (1), 32-bit little-endian words of the library's ``AnsCoder``. Needs
    ``pip install 'corank[entropy]'`` to write and to read.
    """

    def _encode(self, values: np.ndarray, levels: int) -> bytes:
        library, flat = _constriction(), values.reshape(-1)
        return min((_encoded(library, flat, levels, n) for n in sorted({1, most_joined(levels)})), key=len)

    def _decode(self, data: bytes, shape: tuple[int, int], levels: int) -> np.ndarray:
        library, count, joined = _constriction(), shape[0] * shape[1], data[0] if data else 0
        # One byte and whole words of 32 bits.
        if joined not in (1, most_joined(levels)) or len(data) % 4 != 1:
            raise ArtifactError(f"{len(data)} bytes of an ANS code of {joined} symbols joined, with {levels} levels")
        seen = np.zeros(joined_levels(levels, joined), np.int64)
        symbols = np.empty(-(-count // joined), np.int32)
        try:
            # Each block's model comes from the blocks before it, which the reader has by then: nothing of it is stored.
            coder = library.stack.AnsCoder(np.frombuffer(data, "<u4", offset=1).astype(np.uint32))
            for start, stop in _blocks(len(symbols)):
                symbols[start:stop] = coder.decode(_model(library, seen), stop - start)
                seen += np.bincount(symbols[start:stop], minlength=len(seen))
        except (ValueError, AssertionError) as error:
            raise ArtifactError(f"an ANS code is not sound: {error}") from error
        # The right bytes leave nothing behind, others rarely nothing: there is no checksum.
        if not coder.is_empty():
            raise ArtifactError("an ANS code does not end where it should")
        return split(symbols, levels, joined, count)


def _encoded(library: Any, flat: np.ndarray, levels: int, joined: int) -> bytes:
    symbols = join(flat, levels, joined).astype(np.int32)
    seen = np.zeros(joined_levels(levels, joined), np.int64)
    steps = []
    for start, stop in _blocks(len(symbols)):
        steps.append((symbols[start:stop], _model(library, seen)))
        seen += np.bincount(symbols[start:stop], minlength=len(seen))
    coder = library.stack.AnsCoder()
    for block, model in reversed(steps):  # a stack: what is written last is read first
        coder.encode_reverse(block, model)
    return joined.to_bytes(1, "little") + coder.get_compressed().astype("<u4").tobytes()


def _model(library: Any, seen: np.ndarray) -> Any:
    # The half keeps symbols not yet seen possible, or they could not be coded. Writer and reader must round the
    # probabilities alike, so ``perfect`` is a part of the format.
    return library.model.Categorical((seen + 0.5) / (seen.sum() + 0.5 * len(seen)), perfect=False)


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    """Where each model begins and ends."""
    start, size = 0, _FIRST
    while start < count:
        yield start, min(start + size, count)
        # A model that knows nothing is worth renewing soon, one that knows much is not; each costs time.
        start, size = start + size, min(2 * size, _LARGEST)


def _constriction() -> Any:
    try:
        library: Any = import_module("constriction")
    except ImportError as error:
        raise ConfigError(
            "the coder 'ans' needs constriction: pip install 'corank[entropy]'; coder='auto' does without"
        ) from error
    return library.stream
