"""ICQuant (arXiv 2505.00850): outliers have a codebook of their own, and a gap code says where they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from corank.codecs.base import Codebook, Codec, TensorSpec, check_weight
from corank.codecs.clusters import SortedSets, compacted, kmeans
from corank.codecs.gaps import WIDTHS, decode_gaps, encode_gaps, gap_symbols, most_symbols
from corank.codecs.kmeans import KMeans
from corank.codecs.row_levels import RowLevels
from corank.errors import ArtifactError, ConfigError

__all__ = ["ICQuant", "OutlierCodebook", "outlier_mask"]

_BITMAP = 1  # bits of a symbol where the index is a bit for every weight
_LARGEST, _SMALLEST_STEP = 60000.0, 2.0**-24  # of fp16, with room for a step
_CHUNK = 1 << 21  # weights of rows whose levels are found at once


@dataclass(frozen=True)
class OutlierCodebook(Codebook):
    """Two codebooks of as many levels; a mask that no rounder changes says which of them reads a weight's code.

    Attributes:
        mask: bool ``(R, C)``, true for outliers.
        inliers, outliers: levels ``(R, L)`` each.
        beside: what is stored of the levels, by name.
        symbols: ``(N,)`` uint8, what is stored of the mask.
        symbol_bits: of one of them.
    """

    mask: Tensor
    inliers: RowLevels
    outliers: RowLevels
    beside: Mapping[str, Tensor]
    symbols: Tensor
    symbol_bits: int

    @property
    def code_bits(self) -> int:
        return self.inliers.code_bits

    @property
    def size(self) -> int:
        return self.inliers.size

    @property
    def size_bits(self) -> int:
        return 16 * sum(tensor.numel() for tensor in self.beside.values()) + self.symbol_bits * self.symbols.numel()

    def nearest(self, weight: Tensor) -> Tensor:
        return torch.where(self.mask, self.outliers.nearest(weight), self.inliers.nearest(weight))

    def neighbours(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        (low, high), (below, above) = self.inliers.neighbours(weight), self.outliers.neighbours(weight)
        return torch.where(self.mask, below, low), torch.where(self.mask, above, high)

    def values(self, codes: Tensor) -> Tensor:
        return torch.where(self.mask, self.outliers.values(codes), self.inliers.values(codes))

    def columns(self, index: Tensor) -> OutlierCodebook:
        return replace(self, mask=self.mask[:, index])

    def merged(self, codes: Tensor) -> tuple[Tensor, RowLevels]:
        """The same values without a mask, for those who cannot keep one: codes of a bit more and levels of both, not
        ascending. Codes of 8 bits have no bit to spare."""
        if not bool(self.mask.any()):
            return codes, self.inliers
        both = torch.cat([self.inliers.levels, self.outliers.levels], 1)
        return torch.where(self.mask, codes + self.size, codes), RowLevels(both)

    def tensors(self) -> dict[str, Tensor]:
        levels = {name: tensor.to(torch.float16) for name, tensor in self.beside.items()}
        return {"index": self.symbols, **levels} if self.symbols.numel() else levels


@dataclass(frozen=True)
class ICQuant(Codec):
    """The ``floor(outliers * C)`` weights of largest magnitude of each row have their own ``2 ** bits`` levels.

    A few large weights stretch the range of all others; without them the others need about one bit less. Inliers and
    outliers are both coded in ``bits`` bits; gaps between the outliers of a row are stored in about 0.31 bits a weight
    at 5 % (see :mod:`corank.codecs.gaps`), or a bit for every weight where that is less.

    Args:
        bits: of a code, 1 to 8.
        outliers: share of each row, 0 to 0.5; the paper takes 0.05 to 0.0825.
        levels: "uniform": a grid from the least to the largest inlier, and for outliers a bit for the sign and a grid
            in each tail; or "kmeans": levels by k-means for each, weights counting by the energy of their inputs, as
            the diagonal Fisher information of the paper does within a row.
        per: what has levels of its own, "row" or "layer". A row of C weights stores 96 / C bits a weight for uniform
            levels and ``32 * 2 ** bits / C`` for k-means.
        gap_bits: of a symbol of the gap code, 2 to 8; 0 for those that make it shortest.
        index: (symbols, bits of one) that a weight's index has, known once it is fitted; of a fitted codec alone.
    """

    bits: int = 3
    outliers: float = 0.05
    levels: str = "uniform"
    per: str = "row"
    gap_bits: int = 0
    index: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 1 <= self.bits <= 8:
            raise ConfigError(f"bits={self.bits!r}: ICQuant takes 1 to 8, e.g. ICQuant(bits=3)")
        if type(self.outliers) not in (int, float) or not 0 <= self.outliers <= 0.5:
            raise ConfigError(f"outliers={self.outliers!r}: a share of each row from 0 to 0.5, e.g. 0.05")
        if self.levels not in ("uniform", "kmeans"):
            raise ConfigError(f"levels={self.levels!r}: 'uniform' or 'kmeans'")
        if self.per not in ("row", "layer"):
            raise ConfigError(f"per={self.per!r}: levels per 'row' or 'layer'")
        if type(self.gap_bits) is not int or self.gap_bits not in (0, *WIDTHS):
            raise ConfigError(f"gap_bits={self.gap_bits!r}: 2 to 8, or 0 for those that make the index shortest")
        sound = all(type(number) is int and number >= 0 for number in self.index)
        if not sound or (self.index and (len(self.index) != 2 or self.index[1] not in (_BITMAP, *WIDTHS))):
            raise ConfigError(f"index={self.index!r}: (symbols, bits of one) of a fitted codec; leave it out")

    @property
    def checked_tensors(self) -> tuple[str, ...]:
        return ("index",)

    def count(self, columns: int) -> int:
        """Outliers of a row of that length."""
        # 0.29 * 100 is 28.999999999999996: a share in binary must not lose a whole outlier.
        return int(self.outliers * columns + 1e-9)

    def fit(self, weight: Tensor, gram: Tensor | None = None) -> OutlierCodebook:
        """The codebook for ``weight`` ``(R, C)``; ``gram`` weighs errors for k-means levels."""
        check_weight(weight)
        weight = weight.detach().float()
        mask = outlier_mask(weight, self.count(weight.shape[1]))
        beside = self._fit_levels(weight, mask, gram)
        symbols, width = self._encode(mask)
        return self._book(mask, beside, symbols, width)

    def with_measured_size(self, codebook: Codebook) -> Codec:
        assert isinstance(codebook, OutlierCodebook)
        count = codebook.symbols.numel()
        return replace(self, index=(count, codebook.symbol_bits) if count else ())

    def stored(self, rows: int, columns: int) -> dict[str, TensorSpec]:
        count, many = self.count(columns), rows if self.per == "row" else 1
        # A grid is stored as its two ends, and outliers have one grid in each tail.
        each = (2, 4) if self.levels == "uniform" else (1 << self.bits, 1 << self.bits)
        inliers = {"inliers": TensorSpec(many * each[0], 16, True)}
        if not count:
            return inliers
        symbols, width = self._index(rows, columns)
        return {"index": TensorSpec(symbols, width, False), **inliers, "outliers": TensorSpec(many * each[1], 16, True)}

    def codebook(self, tensors: Mapping[str, Tensor], rows: int, columns: int) -> OutlierCodebook:
        beside = {name: tensors[name] for name in ("inliers", "outliers") if name in tensors}
        count = self.count(columns)
        if not count:
            mask = torch.zeros(rows, columns, dtype=torch.bool, device=beside["inliers"].device)
            return self._book(mask, beside, torch.zeros(0, dtype=torch.uint8, device=mask.device), _BITMAP)
        symbols, width = tensors["index"], self._index(rows, columns)[1]
        return self._book(_decode(symbols, width, count, rows, columns), beside, symbols, width)

    def check(self, tensors: Mapping[str, Tensor], rows: int, columns: int) -> None:
        if self.count(columns):
            _decode(tensors["index"], self._index(rows, columns)[1], self.count(columns), rows, columns)

    def _index(self, rows: int, columns: int) -> tuple[int, int]:
        """Symbols and their bits: those of the fitted codec, else the most that any placement takes."""
        count = self.count(columns)
        # Before fitting the worst placement counts: a plan's size is a promise. A file's own number is held to the same
        # bounds, since it decides how much a reader allocates.
        widths = [self.gap_bits] if self.gap_bits else list(WIDTHS)
        most = {width: rows * most_symbols(count, columns, width) for width in WIDTHS} | {_BITMAP: rows * columns}
        if not self.index:
            width = min([*widths, _BITMAP], key=lambda one: one * most[one])
            return most[width], width
        symbols, width = self.index
        least = rows * columns if width == _BITMAP else rows * count
        if not least <= symbols <= most[width]:
            raise ConfigError(
                f"index={self.index!r}: {rows} x {columns} weights with {count} outliers a row take {least} to "
                f"{most[width]} symbols of {width} bits"
            )
        return symbols, width

    def _encode(self, mask: Tensor) -> tuple[Tensor, int]:
        """What is stored of a mask: the shortest code of its gaps, or a bit for each weight where that is shorter."""
        if not bool(mask.any()):
            return torch.zeros(0, dtype=torch.uint8, device=mask.device), _BITMAP
        widths = [self.gap_bits] if self.gap_bits else list(WIDTHS)
        sizes = {width: width * gap_symbols(mask, width) for width in widths}
        best = min(sizes, key=sizes.__getitem__)
        # Gaps are short in the mean only; outliers that crowd in some rows can cost more than the plain mask.
        if sizes[best] >= mask.numel():
            return mask.to(torch.uint8).flatten(), _BITMAP
        return encode_gaps(mask, best), best

    def _fit_levels(self, weight: Tensor, mask: Tensor, gram: Tensor | None) -> dict[str, Tensor]:
        """What is stored of the levels, ``(n, ...)`` as fp16 holds it, for ``n`` rows or one layer."""
        mass = torch.ones_like(weight)
        if self.levels == "kmeans":
            mass = KMeans(self.bits, weighted=True).mass(weight, gram)
        sets = [(weight, mask, mass)]
        if self.per == "layer":
            sets = [(weight.reshape(1, -1), mask.reshape(1, -1), mass.reshape(1, -1))]
        # Sorting and sums in float64 take many times a chunk's own memory.
        step = max(1, _CHUNK // weight.shape[1]) if self.per == "row" else 1
        parts = [part for whole in sets for part in zip(*(tensor.split(step) for tensor in whole), strict=True)]
        beside = {"inliers": torch.cat([self._inliers(*part) for part in parts])}
        if bool(mask.any()):
            beside["outliers"] = torch.cat([self._outliers(*part) for part in parts])
        return beside

    def _inliers(self, weight: Tensor, mask: Tensor, mass: Tensor) -> Tensor:
        # No mass takes the others out and leaves sets of one length, which are searched together.
        if self.levels == "kmeans":
            return self._centres(weight, mass * ~mask)
        low = torch.where(mask, torch.inf, weight).amin(1, keepdim=True)
        return _ends(low, torch.where(mask, -torch.inf, weight).amax(1, keepdim=True))

    def _outliers(self, weight: Tensor, mask: Tensor, mass: Tensor) -> Tensor:
        """What is stored of the outliers' levels: both tails' ends in ascending order, or the levels themselves."""
        if self.levels == "kmeans":
            return self._centres(weight, mass * mask)
        # The lower tail mirrored, so that one loop does both.
        above = torch.where(mask & (weight >= 0), weight, torch.nan)
        below = torch.where(mask & (weight < 0), -weight, torch.nan)
        least = torch.where(mask, weight.abs(), torch.inf).amin(1, keepdim=True)  # where a tail of no weights begins
        ends = []
        # Zero belongs to the upper tail alone: a level of -0 beside one of 0 would not ascend.
        for tail, smallest in ((below, _SMALLEST_STEP), (above, 0.0)):
            inner = torch.where(tail.isnan(), torch.inf, tail).amin(1, keepdim=True)
            inner = torch.where(inner.isinf(), least, inner).clamp(min=smallest)
            outer = torch.where(tail.isnan(), -torch.inf, tail).amax(1, keepdim=True)
            ends.append(_ends(inner, torch.maximum(inner, outer)))
        return torch.cat([-ends[0].flip(1), ends[1]], 1)

    def _centres(self, weight: Tensor, mass: Tensor) -> Tensor:
        found = kmeans(SortedSets.of(weight, mass), 1 << self.bits)
        return compacted(found.clamp(-_LARGEST, _LARGEST).to(torch.float16).float())

    def _book(self, mask: Tensor, beside: Mapping[str, Tensor], symbols: Tensor, width: int) -> OutlierCodebook:
        """The codebook of what is stored, after fitting and after reading alike."""
        rows, count = len(mask), 1 << self.bits
        # Grids are laid out again from the stored ends, here as in a reader, so both see the same levels to the bit.
        inliers = beside["inliers"].reshape(rows if self.per == "row" else 1, -1)
        outliers = beside["outliers"].reshape(len(inliers), -1) if "outliers" in beside else None
        if self.levels == "uniform":
            inliers = _grid(inliers, count)
            if outliers is not None:
                outliers = torch.cat([_grid(tail, count // 2) for tail in outliers.split(2, dim=1)], 1)
        # Without outliers the mask is empty, and what stands in for their levels is never read.
        read = [
            RowLevels(levels.expand(rows, count)) for levels in (inliers, inliers if outliers is None else outliers)
        ]
        return OutlierCodebook(mask, read[0], read[1], beside, symbols, width)


def outlier_mask(weight: Tensor, count: int) -> Tensor:
    """Bool ``(R, C)``: the ``count`` weights of largest magnitude of each row; of equal ones, those that come first."""
    mask = torch.zeros_like(weight, dtype=torch.bool)
    if count:
        chosen = weight.abs().argsort(dim=1, descending=True, stable=True)[:, :count]
        mask.scatter_(1, chosen, torch.ones_like(chosen, dtype=torch.bool))
    return mask


def _decode(symbols: Tensor, width: int, count: int, rows: int, columns: int) -> Tensor:
    if width != _BITMAP:
        return decode_gaps(symbols, width, torch.full((rows,), count, device=symbols.device), columns)
    mask = symbols.reshape(rows, columns) != 0
    if bool((mask.sum(1) != count).any()):
        raise ArtifactError(f"an index that does not mark {count} outliers in every row")
    return mask


def _ends(low: Tensor, high: Tensor) -> Tensor:
    """The ends ``(n, 2)`` of a grid as fp16 holds them, the second always above the first."""
    low, high = (end.clamp(-_LARGEST, _LARGEST).to(torch.float16).float() for end in (low, high))
    # A unit in the last place of fp16, which has 11 significant bits: the least step that survives storing.
    step = torch.exp2(low.abs().frexp().exponent.to(low) - 11).clamp(min=_SMALLEST_STEP)
    return torch.cat([low, torch.where(high > low, high, low + step)], 1)


def _grid(ends: Tensor, count: int) -> Tensor:
    """Equal steps ``(n, count)`` between ends ``(n, 2)``; their middle where there is one."""
    # Interpolated and not summed up step by step, so that both ends are met exactly.
    share = torch.linspace(0, 1, count, dtype=ends.dtype, device=ends.device) if count > 1 else ends.new_full((1,), 0.5)
    return torch.lerp(ends[:, :1], ends[:, 1:], share)
