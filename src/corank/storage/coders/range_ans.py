"""Codes by what stands around them: mixed contexts and interleaved asymmetric numeral systems, in numpy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from corank.errors import ArtifactError
from corank.storage.coders.ans_lanes import MOST_LANES_POWER, AnsReader, AnsWriter
from corank.storage.coders.base import SymbolCoder
from corank.storage.coders.mixed_chances import MixedChances, classes

__all__ = ["PLACES", "Rans", "best_places", "signed_distances"]

PLACES = (1, 3, 5, 7, 8, 9, 16, 25, 49, 196, 256)
"""That a channel may have; a part of the format."""
_SAMPLE = 1 << 16  # symbols by which the places are chosen


@dataclass(frozen=True)
class Rans(SymbolCoder):
    """The smallest for codes that are mostly zero or whose neighbours tell their signs, and slow to read.

    A row is seen as channels of ``k`` places each (9 of a 3 x 3 kernel). Of every symbol it is coded whether it is
    the most frequent one, else on which side of that, else how far: binary decisions as for coefficients of wavelets
    (Taubman, EBCOT, 2000). Chances come from places of the kernel that are there already, from how full the channel
    and the row are so far (:class:`~corank.storage.coders.mixed_chances.MixedChances`): nothing of them is stored.
    Rows of that one symbol alone take a decision each. ``k`` is what makes a sample smallest.

    Bytes: 16 times the place of ``k`` in a list, plus the power of two that lanes are (1); the most frequent symbol
    (1, above 256 levels 2); what :class:`~corank.storage.coders.ans_lanes.AnsWriter` writes.
    """

    def _encode(self, values: np.ndarray, levels: int) -> bytes:
        zero = int(np.bincount(values.reshape(-1), minlength=levels).argmax())
        signed = signed_distances(values, zero, levels)
        places = best_places(signed)
        writer = AnsWriter()
        _Walk(values.shape, places, levels, writer).go(signed)
        power = writer.lanes_power
        head = bytes([16 * PLACES.index(places) + power]) + zero.to_bytes(1 if levels <= 256 else 2, "little")
        return head + writer.written(1 << power)

    def _decode(self, data: bytes, shape: tuple[int, int], levels: int) -> np.ndarray:
        begin = 2 if levels <= 256 else 3
        if len(data) < begin or data[0] >> 4 >= len(PLACES) or data[0] & 15 > MOST_LANES_POWER:
            raise ArtifactError("the head of a code by contexts is cut off or not sound")
        places, zero = PLACES[data[0] >> 4], int.from_bytes(data[1:begin], "little")
        if shape[1] % places or zero >= levels:
            raise ArtifactError(f"a code by contexts of {places} places in {shape[1]} columns, around {zero}")
        reader = AnsReader(data[begin:], 1 << (data[0] & 15))
        found = _Walk(shape, places, levels, reader).go(None)
        reader.check_end()
        return (found + zero) % levels

    def expected_bytes(self, values: np.ndarray, levels: int) -> float:
        """About what ``encode`` gives for many symbols ``(R, C)``, from a sample of their rows; 0 for few."""
        step = values.size // (2 * _SAMPLE)
        if step < 2:
            return 0.0
        rows = values[::step]
        signed = signed_distances(rows, int(np.bincount(rows.reshape(-1), minlength=levels).argmax()), levels)
        writer = AnsWriter()
        _Walk((rows.shape[0], rows.shape[1]), best_places(signed), levels, writer).go(signed)
        return writer.size_bytes * len(values) / len(rows)


def signed_distances(values: np.ndarray, zero: int, levels: int) -> np.ndarray:
    """Distances from ``zero``, the shorter way around: what is one below level 0 is the last level."""
    half = levels // 2
    return (values.astype(np.int32) - zero + half) % levels - half


def best_places(signed: np.ndarray) -> int:
    """Of all that divide the columns, those whose neighbours tell most of a sample of the rows."""
    sample = np.sign(signed[:: -(-signed.size // _SAMPLE)]) + 1
    # One place, which always divides them, knows no neighbours and learns in few large steps: only where no other does.
    divisors = [k for k in PLACES if signed.shape[1] % k == 0]
    return min(divisors[1:] or divisors, key=lambda k: _surprise(sample, k))


def _surprise(sides: np.ndarray, places: int) -> float:
    """Bits of symbols that are 0, 1 or 2 after those to their left and above, and what the chances take to learn."""
    cells = sides.reshape(-1, places)
    padded = np.concatenate([cells, np.ones((len(cells), 1), cells.dtype)], 1)
    near = np.array(_neighbours(places))[:, :2]
    after = 9 * (near >= 0).sum(1) + 3 * padded[:, near[:, 0]] + padded[:, near[:, 1]]
    counts = np.bincount((3 * after + cells).reshape(-1), minlength=81).reshape(27, 3).astype(np.float64)
    sums = counts.sum(1)
    bits = (sums * np.log2(np.maximum(sums, 1))).sum() - (counts * np.log2(np.maximum(counts, 1))).sum()
    return float(bits + np.log2(sums + 1).sum())


def _neighbours(places: int) -> list[list[int]]:
    """For each place the one to its left, above, above left, above right, two to the left, two above; -1 is none."""
    width = math.isqrt(places)
    if width * width != places:
        width = places  # a row of places, not a square
    steps = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0))
    found: list[list[int]] = []
    for place in range(places):
        y, x = divmod(place, width)
        found.append([(y + dy) * width + x + dx if 0 <= x + dx < width and y + dy >= 0 else -1 for dy, dx in steps])
    return found


@dataclass
class _Block:
    """The rows that are coded together: ``n`` cells, one for each row and channel, at each of the places.

    Attributes:
        sizes, signs: ``(places + 1, n)``; of places not yet coded, and of the last one, which stands for none, 0.
        channel: ``(n,)`` class of each cell's channel.
        filled: ``(rows,)`` how many symbols of each row are not zero so far.
    """

    sizes: np.ndarray
    signs: np.ndarray
    channel: np.ndarray
    filled: np.ndarray


@dataclass
class _Walk:
    """Goes through a matrix, writing or reading: both ask for the same chances in the same order."""

    shape: tuple[int, int]
    places: int
    levels: int
    coder: AnsWriter | AnsReader
    models: dict[str, MixedChances] = field(default_factory=dict)

    def go(self, truth: np.ndarray | None) -> np.ndarray:
        """The signed symbols ``(R, C)``: ``truth``, or where that is None what the coder reads."""
        (rows, columns), places = self.shape, self.places
        channels = columns // places
        self.models = {
            "row": MixedChances((1,)),
            "filled": MixedChances((48, 27, 8, 64)),
            "sign": MixedChances((27, 13)),
            "longer": MixedChances((64, 128, 32)),
            "rest": MixedChances((512, 1024)),
        }
        self.neighbours = _neighbours(places)
        found = np.zeros((rows, places, channels), np.int32)
        given = None if truth is None else truth.reshape(rows, channels, places).transpose(0, 2, 1)
        self.in_channel, self.seen = np.zeros(channels, np.int64), 0
        # A step codes many cells at once and learns after them: few cells first, then as many as make steps cheap.
        most = 1 << min(14, max(8, (rows * columns).bit_length() - 10))
        start, size = 0, 1
        while start < rows:
            part = slice(start, min(rows, start + size))
            some = None if given is None else given[part]
            lives = None if some is None else (some != 0).any((1, 2))
            live = self._ask("row", [np.zeros(part.stop - start, np.int64)], lives)
            if live.any():
                found[part][live] = self._block(int(live.sum()), None if some is None else some[live])
            start = part.stop
            if 2 * size * channels <= most:
                size *= 2
        return found.transpose(0, 2, 1).reshape(rows, columns)

    def _ask(self, kind: str, contexts: list[np.ndarray], truth: np.ndarray | None) -> np.ndarray:
        model = self.models[kind]
        answers = self.coder.answers(model.chances(contexts), truth)
        model.learn(answers)
        return answers

    def _block(self, rows: int, truth: np.ndarray | None) -> np.ndarray:
        """Symbols ``(rows, places, channels)`` of rows that are not all zero."""
        channels = len(self.in_channel)
        total, count = int(self.in_channel.sum()), rows * channels
        block = _Block(
            np.zeros((self.places + 1, count), np.int64),
            np.zeros((self.places + 1, count), np.int64),
            np.tile(classes(self.in_channel, total // channels), rows),
            np.zeros(rows, np.int64),
        )
        found = np.zeros((rows, self.places, channels), np.int32)
        for place in range(self.places):
            # Of a row's cells so far, as many as were filled on the average of all rows before.
            usual = (total + 1) * place * channels // (self.seen + 2)
            in_row = np.repeat(classes(block.filled, usual), channels)
            some = None if truth is None else truth[:, place].reshape(-1)
            found[:, place] = self._place(place, block, in_row, some).reshape(rows, channels)
            block.filled += np.count_nonzero(found[:, place], 1)
        self.in_channel += np.count_nonzero(found, (0, 1))
        self.seen += found.size
        return found

    def _place(self, place: int, block: _Block, in_row: np.ndarray, truth: np.ndarray | None) -> np.ndarray:
        """Signed symbols ``(n,)`` of one place in all rows and channels of a block."""
        near = self.neighbours[place]
        known = 9 * sum(cell >= 0 for cell in near[:2])
        left, above, *farther = (block.sizes[cell] for cell in near)
        around = np.minimum(2 * (left + above) + sum(farther), 15)
        pair = known + 3 * np.minimum(left, 2) + np.minimum(above, 2)
        contexts = [known // 9 * 16 + around, pair, block.channel, 8 * block.channel + in_row]
        filled = np.flatnonzero(self._ask("filled", contexts, None if truth is None else truth != 0))
        found = np.zeros(len(around), np.int32)
        if len(filled):
            some = None if truth is None else truth[filled]
            negative = np.ones(len(filled), bool)
            if self.levels > 2:
                left, above, *farther = (block.signs[cell][filled] for cell in near)
                slope = np.minimum(np.maximum(2 * (left + above) + sum(farther), -6), 6) + 6
                contexts = [known + 3 * (left + 1) + above + 1, slope]
                negative = self._ask("sign", contexts, None if some is None else some < 0)
            contexts = [np.minimum(around[filled], 7) >> 1, block.channel[filled], negative.astype(np.int64)]
            size = self._size(contexts, None if some is None else np.abs(some))
            found[filled] = np.where(negative, -size, size)
            block.signs[place, filled] = np.where(negative, -1, 1)
            block.sizes[place, filled] = np.minimum(size, 3)
        return found

    def _size(self, contexts: list[np.ndarray], truth: np.ndarray | None) -> np.ndarray:
        """Sizes ``(n,)`` from 1 on: how many bits they have, by asking for one more, then the bits behind the first."""
        most = self.levels // 2
        around, channel, negative = contexts
        bits, going = np.zeros(len(around), np.int64), np.arange(len(around))
        for length in range(max(0, most.bit_length() - 1)):
            at = [4 * length + around[going], 8 * length + channel[going], 2 * length + negative[going]]
            longer = self._ask("longer", at, None if truth is None else truth[going] >> (length + 1) > 0)
            going = going[longer]
            if not len(going):
                break
            bits[going] += 1
        size = np.ones(len(around), np.int64)
        for done in range(int(bits.max())):
            going = np.flatnonzero(bits > done)
            # Up to five bits are a tree, each with the chances of all before it; the lower ones are near even.
            tree = 32 * bits[going] + (size[going] if done < 5 else 0)
            some = None if truth is None else (truth[going] >> (bits[going] - done - 1) & 1) > 0
            size[going] = 2 * size[going] + self._ask("rest", [tree, 2 * tree + negative[going]], some)
        if int(size.max()) > most:
            raise ArtifactError(f"a coded symbol {int(size.max())} levels away where {self.levels} levels are")
        return size
