"""What ``adaptive.cpp`` computes, in Python, number by number: for machines without a compiler, and to check it by."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from corank.kernels.adaptive_tables import CHANCES, FARTHEST, LOGARITHMS, MOST_COUNTED, Layout
from corank.kernels.trellis import MACHINES

__all__ = ["CLASSES", "KNOT", "ArithmeticReader", "ArithmeticWriter", "Kind", "Walk", "neighbours", "side"]

_SLOWEST, _FASTER, _USUAL, _MOST_ASKED, _CARRIED = 60, 300, 256, 1 << 20, 64
KNOT = 8  # of refined chances: odds from knot to knot, as a shift
CLASSES, _PLACES = 14, 32
_ALL = 0xFFFFFFFF


class ArithmeticWriter:
    """A binary arithmetic coder of 32 bits, without carries."""

    reads = False

    def __init__(self) -> None:
        self._low, self._high = 0, _ALL
        self._written = bytearray()

    def step(self, chance: int, answer: bool) -> bool:
        """Writes the answer whose chance of yes is that, of 65536; gives it back."""
        middle = self._low + ((self._high - self._low) * chance >> 16)
        if answer:
            self._high = middle
        else:
            self._low = middle + 1
        while not (self._low ^ self._high) & 0xFF000000:
            self._written.append(self._high >> 24)
            self._low, self._high = self._low << 8 & _ALL, self._high << 8 & _ALL | 0xFF
        return answer

    def closed(self) -> bytes:
        """All bytes: the last are the fewest that, followed by zeros, stand for a number in what is left."""
        if self._low:
            for size in range(1, 5):
                unit = 1 << (32 - 8 * size)
                number = -(-self._low // unit) * unit
                if number <= self._high:
                    self._written += number.to_bytes(4, "big")[:size]
                    break
        return bytes(self._written).rstrip(b"\0")


class ArithmeticReader:
    """Reads what :class:`ArithmeticWriter` wrote."""

    reads = True

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 4
        self._low, self._high, self._read = 0, _ALL, int.from_bytes(data[:4].ljust(4, b"\0"), "big")

    def step(self, chance: int, _: bool) -> bool:
        """The next answer whose chance of yes is that, of 65536."""
        middle = self._low + ((self._high - self._low) * chance >> 16)
        answer = self._read <= middle
        if answer:
            self._high = middle
        else:
            self._low = middle + 1
        while not (self._low ^ self._high) & 0xFF000000:
            following = self._data[self._at] if self._at < len(self._data) else 0
            self._at += 1
            self._low, self._high = self._low << 8 & _ALL, self._high << 8 & _ALL | 0xFF
            self._read = self._read << 8 & _ALL | following
        return answer

    @property
    def ended(self) -> bool:
        """Whether all bytes were read, and the last is one that a writer would write."""
        return self._at >= len(self._data) and not self._data.endswith(b"\0")


class Kind:
    """One kind of decision: contexts that count, and weights that mix what they say."""

    def __init__(self, sizes: tuple[int, ...], sets: int, most: int = MOST_COUNTED) -> None:
        self._most = most
        self._no, self._yes = [[0] * size for size in sizes], [[0] * size for size in sizes]
        self._weights = [[65536 * 4 // 3 // len(sizes)] * len(sizes) for _ in range(sets)]
        self._asked = [0] * sets

    def ask(
        self,
        step: Callable[[int, bool], bool],
        context: tuple[int, ...],
        chosen: int,
        answer: bool,
        refined: Any = None,
    ) -> bool:
        """The answer, written or read by ``step``, in these contexts, by the weights of that set."""
        weights = self._weights[chosen]
        counts = list(zip(self._no, self._yes, context, strict=True))
        told = [LOGARITHMS[yes[place]] - LOGARITHMS[no[place]] for no, yes, place in counts]
        odds = sum(weight * one for weight, one in zip(weights, told, strict=True)) >> 16
        odds = min(max(odds, -FARTHEST), FARTHEST) + FARTHEST
        chance = CHANCES[odds]
        answer = step(chance, answer) if refined is None else _refine(step, refined, odds, answer)
        slope = ((65536 if answer else 0) - chance) * (_SLOWEST + _FASTER * _USUAL // (_USUAL + self._asked[chosen]))
        for number, (no, yes, place) in enumerate(counts):
            weights[number] += slope * told[number] >> 22
            counted = yes if answer else no
            counted[place] += 1
            if counted[place] > self._most:
                yes[place] >>= 1
                no[place] >>= 1
        self._asked[chosen] = min(self._asked[chosen] + 1, _MOST_ASKED)
        return answer

    def carry(self) -> None:
        """Before another matrix: what was counted weighs less, and weights move faster again."""
        self._no, self._yes = ([[count >> 2 for count in one] for one in counts] for counts in (self._no, self._yes))
        self._asked = [min(number, _CARRIED) for number in self._asked]


def _refine(step: Callable[[int, bool], bool], refined: list[int], odds: int, answer: bool) -> bool:
    """Asks by the mean of the chance and of what such odds came to before, between two knots."""
    at, part = odds >> KNOT, odds & ((1 << KNOT) - 1)
    shares = ((1 << KNOT) - part, part)
    seen = (refined[at] * shares[0] + refined[at + 1] * shares[1]) >> (KNOT + 4)
    answer = step(min(max((CHANCES[odds] + seen) >> 1, 1), 65535), answer)
    for place, share in enumerate(shares, at):
        refined[place] += ((65535 * 16 if answer else 0) - refined[place]) * share >> (KNOT + 6)
    return answer


def _class_of(total: int, count: int, usual: int) -> int:
    """Which octave a mean is of, drawn to the mean of all."""
    return min(((64 * total + 2 * usual) // (count + 2)).bit_length(), CLASSES - 1)


def side(value: int) -> int:
    return (value > 0) - (value < 0)


class Walk:
    """Goes through a matrix row by row, writing or reading: both ask for the same chances in the same order."""

    def __init__(self, layout: Layout, coder: ArithmeticWriter | ArithmeticReader) -> None:
        self._layout, self._step = layout, coder.step
        self._machine = MACHINES.get(layout.states)
        sizes = (8, 144, 3 * CLASSES, CLASSES**2, 24 * CLASSES, 192, _PLACES * CLASSES)
        self._filled = Kind(sizes, 8)
        self._sign = Kind((27, 39, 9, 3 * CLASSES), 1)
        self._longer = Kind((256, 16 * CLASSES, 16 * CLASSES, 16 * CLASSES, 128), 16)
        self._rest = Kind((512, 1024, 3072), 16)
        self._neighbours = neighbours(layout.places)

    def go(self, shape: tuple[int, int], truth: list[int] | None) -> list[int] | None:
        """The numbers of a matrix of that shape, row by row: ``truth``, or where that is None what is read; None where
        one is farther from zero than it may be."""
        rows, columns = shape
        places = self._layout.places
        found: list[int] = []
        self._in_column, self._in_channel = [0] * columns, [0] * (columns // places)
        self._last, self._now, self._states = [0] * columns, [0] * columns, [0] * columns
        in_all = 0
        for row in range(rows):
            self._row, self._in_row, self._sides = row, 0, 0
            self._usual = 64 * in_all // (row * columns + 1)
            for column in range(columns):
                value = self._number(column, 0 if truth is None else truth[row * columns + column])
                if value is None:
                    return None
                found.append(value)
            in_all += self._in_row
        return found

    def _number(self, column: int, truth: int) -> int | None:
        """One number: the place in its grid, if there are grids, is what is coded."""
        machine, state, grid = self._machine, self._states[column], 2
        symbol = abs(truth)
        if machine is not None:
            grid = machine.grids[state]
            symbol = (symbol + 1) // 2 if grid else symbol // 2
        signed = self._symbol(column, (state, grid), -symbol if truth < 0 else symbol)
        if signed is None:
            return None
        size, channel = abs(signed), column // self._layout.places
        if machine is not None:
            self._states[column] = machine.leads[state][size & 1]
        self._last[column], self._now[column] = self._now[column], signed
        self._in_column[column] += size
        self._in_channel[channel] += size
        self._in_row += size
        self._sides += side(signed)
        if machine is None:
            return signed
        return side(signed) * (2 * size - 1 if grid and size else 2 * size)

    def _symbol(self, column: int, read_in: tuple[int, int], truth: int) -> int | None:
        state, grid = read_in
        channel, place = divmod(column, self._layout.places)
        known, sizes, left, above, slope = self._around(column - place, place)
        own = _class_of(self._in_column[column], self._row, self._usual)
        line = _class_of(self._in_row, column, self._usual)
        group = _class_of(self._in_channel[channel], self._row * self._layout.places, self._usual)
        now, last = self._now[column], self._last[column]
        previous = self._now[column - self._layout.places] if channel else 0
        near = 16 * min(abs(now), 3) + 4 * min(abs(last), 3) + min(abs(previous), 3)
        cell = (
            *(state, (grid * 3 + known) * 16 + sizes, grid * CLASSES + own, line * CLASSES + own),
            *((grid * CLASSES + group) * 8 + sizes // 2, grid * 64 + near, min(place, _PLACES - 1) * CLASSES + line),
        )
        if not self._filled.ask(self._step, cell, state, truth != 0):
            return 0
        lean = _class_of(abs(self._sides), column, 64) + (0 if self._sides < 0 else CLASSES)
        sides = (
            9 * known + 3 * (left + 1) + above + 1,
            13 * grid + slope,
            3 * (side(now) + 1) + side(last) + 1,
            lean,
        )
        negative = self._sign.ask(self._step, sides, 0, truth < 0)
        size = self._sized((sizes, own, line, group, state), (int(negative), min(own // 3, 5)), abs(truth))
        return None if size > self._layout.half else -size if negative else size

    def _around(self, first: int, place: int) -> tuple[int, int, int, int, int]:
        """How many of the two closest there are, how large all are, the signs of the two, and of all."""
        known = sizes = slope = left = above = 0
        for number, other in enumerate(self._neighbours[place]):
            if other < 0:
                continue
            value, weight = self._now[first + other], 2 if number < 2 else 1
            known += number < 2
            sizes += weight * min(abs(value), 3)
            slope += weight * side(value)
            left, above = (side(value) if number == at else one for at, one in enumerate((left, above)))
        return known, min(sizes, 15), left, above, min(max(slope, -6), 6) + 6

    def _sized(self, at: tuple[int, ...], low_at: tuple[int, int], size: int) -> int:
        """Size of a number that is not zero: how many bits, then the bits behind the first."""
        bits, most = 0, max(0, self._layout.half.bit_length() - 1)
        while bits < most:
            context = (
                *(16 * bits + at[0], CLASSES * bits + at[1], CLASSES * bits + at[2]),
                *(CLASSES * bits + at[3], 8 * bits + at[4]),
            )
            if not self._longer.ask(self._step, context, bits, size >> (bits + 1) > 0):
                break
            bits += 1
        found = 1
        for done in range(bits):
            tree = 32 * bits + (found if done < 5 else 0)
            context = (tree, 2 * tree + low_at[0], 6 * tree + low_at[1])
            found = 2 * found + self._rest.ask(self._step, context, bits, bool(size >> (bits - done - 1) & 1))
        return found


def neighbours(places: int) -> list[list[int]]:
    """For each place of a channel those around it that come before it; -1 for none."""
    width = math.isqrt(places)
    width = width if width * width == places else places  # a row of places, not a square
    found: list[list[int]] = []
    for place in range(places):
        y, x = divmod(place, width)
        steps = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0))
        found.append([(y + dy) * width + x + dx if 0 <= x + dx < width and y + dy >= 0 else -1 for dy, dx in steps])
    return found
