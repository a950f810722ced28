"""sHAM: a sparse matrix by columns, its other values as Huffman words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from corank.errors import ArtifactError
from corank.storage.coders.base import SymbolCoder
from corank.storage.coders.bit_stream import lane_bits, read_lanes, write_words
from corank.storage.coders.ham import check_row, check_words, one_lane, read_sizes, stored_sizes, word_of
from corank.storage.coders.prefix_code import PrefixCode, code_of, read_code

__all__ = ["Sham", "index_bits"]


def index_bits(shape: tuple[int, int], others: int) -> int:
    """``nnz r(n) + m r(n)``: bits of the places and the counts of ``others`` values in a matrix of ``m`` rows here."""
    return (others + shape[0]) * word_of(shape[1])


@dataclass(frozen=True)
class Sham(SymbolCoder):
    """Sparse Huffman Address Map (arXiv 2108.12704): compressed sparse columns whose values are Huffman words.

    A column of the paper is a row here, as in :class:`Ham`. The most frequent symbol is left out. For each row, how
    many others there are; for each of them its column; both in ``r(C)`` bits, :func:`index_bits`. Their symbols are
    written as in :class:`Ham`, with the bits of each row beside them for :meth:`row`. Smaller than :class:`Ham` where
    few symbols are left: about one in twenty.

    Bytes: the symbol left out (2), the counts, the columns, and where there are others the code's lengths, the rows'
    bits and the words.
    """

    def _encode(self, values: np.ndarray, levels: int) -> bytes:
        # Zero in a pruned matrix, but its code differs from codec to codec: the most frequent symbol serves all.
        absent = int(np.bincount(values.reshape(-1), minlength=levels).argmax())
        rows, columns = np.nonzero(values != absent)
        counts = np.bincount(rows, minlength=len(values))
        kind = f"<u{word_of(values.shape[1]) // 8}"
        head = absent.to_bytes(2, "little") + counts.astype(kind).tobytes() + columns.astype(kind).tobytes()
        # No others, no code: a prefix code needs a symbol.
        if not len(rows):
            return head
        others = values[rows, columns]
        code = code_of(np.bincount(others, minlength=levels))
        return head + code.stored() + stored_sizes(lane_bits(others, code, counts)) + write_words(others, code, 4)

    def _decode(self, data: bytes, shape: tuple[int, int], levels: int) -> np.ndarray:
        parts = _Parts.read(data, shape, levels)
        full = np.full(shape, parts.absent, np.uint8 if levels <= 256 else np.int32)
        if parts.code is not None:
            lanes = read_lanes(parts.words, parts.code, parts.sizes, parts.counts)
            # Behind a lane's count stands noise. Row by row from the left, as the columns are stored.
            filled = np.arange(lanes.shape[1]) < parts.counts[:, None]
            full[np.repeat(np.arange(shape[0]), parts.counts), parts.columns] = lanes[filled]
        return full

    def row(self, data: bytes, number: int, shape: tuple[int, int], levels: int) -> Tensor:
        """Row ``number`` of ``decode(data, shape, levels)``, ``(C,)`` and of its dtype; the others' words stay unread.

        Raises:
            ConfigError: where there is no such row. ArtifactError: as ``decode``.
        """
        check_row(number, shape)
        parts = _Parts.read(data, shape, levels)
        full = np.full(shape[1], parts.absent, np.uint8 if levels <= 256 else np.int32)
        count = int(parts.counts[number])
        if parts.code is not None and count:
            # Counts say where a row's columns begin, sizes where its words do.
            begin = int(parts.counts[:number].sum())
            found = one_lane(parts.words, parts.code, parts.sizes, number, count)
            full[parts.columns[begin : begin + count]] = found[0]
        return torch.from_numpy(full)


@dataclass(frozen=True, eq=False)
class _Parts:
    """What the bytes hold, checked: the symbol left out, others in each row, their columns, their words."""

    absent: int
    counts: np.ndarray
    columns: np.ndarray
    code: PrefixCode | None
    sizes: np.ndarray
    words: bytes

    @classmethod
    def read(cls, data: bytes, shape: tuple[int, int], levels: int) -> _Parts:
        """The parts of bytes from anywhere; each size is held against the data before it is used."""
        rows, width = shape
        kind, size = f"<u{word_of(width) // 8}", word_of(width) // 8
        at = 2 + rows * size
        if len(data) < at:
            raise ArtifactError("the counts of a sparse matrix are cut off")
        counts = np.frombuffer(data, kind, rows, 2).astype(np.int64)
        total = int(counts.sum())
        # Before they are read: a count is what decides how much.
        if counts.max() > width or len(data) < at + total * size:
            raise ArtifactError("the columns of a sparse matrix are cut off, or more than there are")
        columns = np.frombuffer(data, kind, total, at).astype(np.int64)
        _check_columns(columns, counts, width)
        absent, at = int.from_bytes(data[:2], "little"), at + total * size
        if absent >= levels:
            raise ArtifactError(f"a coded symbol of {absent} where {levels} levels are")
        if not total:
            if len(data) != at:
                raise ArtifactError(f"{len(data) - at} bytes behind a matrix of one symbol")
            return cls(absent, counts, columns, None, counts, b"")
        code, used = read_code(data[at:], levels)
        sizes, at = read_sizes(data, at + used, rows)
        check_words(len(data) - at, int(sizes.sum()))
        return cls(absent, counts, columns, code, sizes, data[at:])


def _check_columns(columns: np.ndarray, counts: np.ndarray, width: int) -> None:
    """Raises ArtifactError unless the columns of every row ascend and exist."""
    rising = np.diff(columns) > 0
    ends = np.cumsum(counts)[:-1]
    rising[ends[(ends > 0) & (ends < len(columns))] - 1] = True  # from one row to the next they may fall
    if len(columns) and (not rising.all() or columns.max() >= width):
        raise ArtifactError("the columns of a sparse matrix do not ascend, or do not exist")
