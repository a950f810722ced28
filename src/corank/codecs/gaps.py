"""Marked positions of each row as gaps, the index code of ICQuant (arXiv 2505.00850).

A symbol has ``b`` bits; ``M = 2^b - 1``. ``v < M`` is "the next mark stands ``v + 1`` positions further", and ``M`` is
"go on ``M`` positions, no mark". A gap ``g``, the first one counted from position -1, is ``(g - 1) // M`` times ``M``
and then ``(g - 1) mod M``: ``ceil(g / M)`` symbols. Rows follow each other without a break. ``R`` rows, ``C`` columns.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from corank.errors import ArtifactError, ConfigError

__all__ = ["WIDTHS", "decode_gaps", "encode_gaps", "expected_bits", "gap_symbols", "most_symbols"]

WIDTHS = range(2, 9)  # bits of a symbol


def gap_symbols(mask: Tensor, bits: int) -> int:
    """How many symbols :func:`encode_gaps` gives: the sum of ``ceil(g / M)`` over all gaps."""
    _, gaps = _gaps(mask)
    # ceil(g / M) in whole numbers, exact however long a gap is.
    return int((gaps + _reach(bits) - 1).div(_reach(bits), rounding_mode="floor").sum())


def encode_gaps(mask: Tensor, bits: int) -> Tensor:
    """The symbols of a mask.

    Args:
        mask: bool ``(R, C)``, true at each mark.
        bits: of a symbol, 2 to 8.

    Returns:
        ``(N,)`` uint8, ``N`` as :func:`gap_symbols` says.
    """
    reach = _reach(bits)
    _, gaps = _gaps(mask)
    # All symbols begin as skips; only the last one of each gap is then written over.
    skips = (gaps - 1).div(reach, rounding_mode="floor")
    last = (skips + 1).cumsum(0) - 1
    symbols = torch.full((int((skips + 1).sum()),), reach, dtype=torch.uint8, device=mask.device)
    symbols[last] = ((gaps - 1) % reach).to(torch.uint8)
    return symbols


def decode_gaps(symbols: Tensor, bits: int, counts: Tensor, columns: int) -> Tensor:
    """The mask ``(R, C)`` bool of symbols: the inverse of :func:`encode_gaps`.

    Args:
        symbols: ``(N,)`` uint8, from anywhere.
        bits: of a symbol.
        counts: ``(R,)`` whole numbers, marks of each row.
        columns: of the mask; ``R x C`` is what this allocates, beside a few numbers for each symbol.

    Raises:
        ArtifactError: for symbols that are not those of such a mask.
    """
    reach = _reach(bits)
    # A skip behind the last mark would be read by no one: refused, so that a mask has one code alone.
    is_mark = symbols != reach
    ends = counts.long().cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    if int(is_mark.sum()) != total or (len(symbols) and not bool(is_mark[-1])):
        raise ArtifactError(f"an index of {int(is_mark.sum())} marks, complete or not, where there are {total}")
    mask = torch.zeros(len(counts), columns, dtype=torch.bool, device=symbols.device)
    if not total:
        return mask
    # Positions along all rows as one line; those of a row begin where the row before has its last mark.
    along = torch.where(is_mark, symbols.long() + 1, reach).cumsum(0)[is_mark]
    # From the right, so that rows without marks, which end where the row before does, are passed over.
    row = torch.searchsorted(ends, torch.arange(total, device=ends.device), right=True)
    starts = torch.cat([along.new_zeros(1), along])[(ends - counts.long())[row]]
    # Every symbol moves on, so columns ascend within a row and only the end of the row is left to check.
    column = along - starts - 1
    if bool((column >= columns).any()):
        raise ArtifactError(f"an index with a mark at position {int(column.max())} of {columns}")
    mask[row, column] = True
    return mask


def expected_bits(share: float, bits: int) -> float:
    """Bits a position for marks at random places, at most: ``share b (1 + 1 / (e^(share (2^b - 1)) - 1))``.

    The published bound, of a share of 0 to 1 of marked positions; 0.313 at 5 % with 6 bits.
    """
    if share <= 0:
        return 0.0
    # A gap takes more than j M positions with probability at most e^(-share j M); the sum over j >= 1 is the skips.
    # expm1, since for a small share e^x - 1 would cancel.
    return share * bits * (1 + 1 / math.expm1(share * _reach(bits)))


def most_symbols(count: int, columns: int, bits: int) -> int:
    """The symbols that a row of ``columns`` with ``count`` marks takes at most, wherever they are."""
    # sum floor((g - 1) / M) <= floor(sum(g - 1) / M), and the gaps of a row together are at most C.
    return count + (columns - count) // _reach(bits) if count else 0


def _reach(bits: int) -> int:
    if bits not in WIDTHS:
        raise ConfigError(f"gaps in symbols of {bits!r} bits: 2 to 8, e.g. 6")
    return (1 << bits) - 1


def _gaps(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Row of each mark, and how far it stands from the mark before it in the row, or from -1."""
    row, column = mask.nonzero(as_tuple=True)
    before = torch.cat([column.new_full((1,), -1), column[:-1]])
    # The first mark of a row counts from -1, whatever the row before ended with.
    first = torch.ones_like(row, dtype=torch.bool)
    first[1:] = row[1:] != row[:-1]
    return row, column - torch.where(first, -1, before)
