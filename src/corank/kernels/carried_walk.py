"""What ``adaptive.cpp`` computes of matrices one after the other, in Python, number by number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from corank.kernels.adaptive_tables import CHANCES, FARTHEST, Layout
from corank.kernels.adaptive_walk import CLASSES, KNOT, ArithmeticReader, ArithmeticWriter, Kind, neighbours, side
from corank.kernels.trellis import MACHINES

__all__ = ["CarriedWalk", "Learned"]

_COUNTED, _SIZES, _PLACES, _SURE = 255, 64, 32, 17
_WINDOW, _LARGEST, _COMPARED = 64, 127, 65536
_SIDES = 2 * _SURE - 1


class Learned:
    """All that is learned from one matrix and carried to the next."""

    def __init__(self) -> None:
        self.filled = Kind((144, 24 * CLASSES, 192, 3 * _SIZES, 3 * _SIZES, 3 * _SIZES, 8 * _SURE), 8, _COUNTED)
        self.sign = Kind((27, 39, 9, 243, _SIDES), 1, _COUNTED)
        self.longer = Kind((512, 32 * CLASSES, 32 * _SIZES, 32 * _SIDES), 32, _COUNTED)
        self.rest = Kind((512, 1024, 3072), 16, _COUNTED)
        knots = [16 * CHANCES[min(odds, 2 * FARTHEST)] for odds in range(0, 2 * FARTHEST + 2 * (1 << KNOT), 1 << KNOT)]
        sets = (_SIZES, 13 * _PLACES, 32 * _SIZES, 16)
        self.refined = [[list(knots) for _ in range(count)] for count in sets]

    def carry(self) -> None:
        """Before another matrix."""
        for kind in (self.filled, self.sign, self.longer, self.rest):
            kind.carry()


class _Alike:
    """What rows above tell of a row: those that went with it so far are taken to go with it further on."""

    def __init__(self, rows: int, columns: int) -> None:
        self._slots = min((rows + 6) // 8 * 8, _WINDOW)
        self._above = np.zeros((columns, self._slots), np.int64)
        self._energy = self._count = 1

    def begin_row(self) -> None:
        self._together = self._shares = np.zeros(self._slots, np.int64)

    def expected(self, column: int) -> int:
        """16 and more times the number to come, in means of its size so far."""
        if column % 8 == 0:
            mean = (self._energy << 8) // self._count + 1
            factor = (1 << 38) // (mean * (min(column, _COMPARED) + 60))
            self._shares = np.clip(self._together * factor >> 20, -32767, 32767)
        return int(self._shares @ self._above[column])

    def learn(self, row: int, column: int, symbol: int) -> None:
        value = min(max(symbol, -_LARGEST), _LARGEST)
        self._count += 1
        self._energy += value * value
        if self._slots:
            if value and column < _COMPARED:
                self._together = self._together + value * self._above[column]
            self._above[column, row % self._slots] = value


@dataclass(frozen=True)
class _Cell:
    """Where a symbol stands: its row, column and place in its channel, the machine's state, its grid, what rows alike
    let expect."""

    row: int
    column: int
    place: int
    state: int
    grid: int
    expected: int


class CarriedWalk:
    """Goes through one matrix after another, writing or reading, and takes along what it learned."""

    def __init__(self, learned: Learned, layout: Layout, coder: ArithmeticWriter | ArithmeticReader) -> None:
        self._learned, self._layout, self._step = learned, layout, coder.step
        self._machine, self._neighbours = MACHINES.get(layout.states), neighbours(layout.places)

    def go(self, shape: tuple[int, int], truth: list[int] | None) -> list[int] | None:
        """The numbers of a matrix of that shape, row by row: ``truth``, or where that is None what is read; None where
        one is farther from zero than it may be."""
        (rows, columns), places, machine = shape, self._layout.places, self._machine
        self._learned.carry()
        found: list[int] = []
        self._in_column, self._in_channel = [0] * columns, [0] * (columns // places)
        self._last, self._now, states = [0] * columns, [0] * columns, [0] * columns
        in_all, alike = 0, _Alike(rows, columns)
        for row in range(rows):
            self._in_row, self._usual = 0, 64 * in_all // (row * columns + 1)
            alike.begin_row()
            for column in range(columns):
                state = states[column]
                grid = 2 if machine is None else machine.grids[state]
                given = 0 if truth is None else truth[row * columns + column]
                size = abs(given) if machine is None else (abs(given) + 1) // 2 if grid else abs(given) // 2
                cell = _Cell(row, column, column % places, state, grid, alike.expected(column))
                symbol = self._symbol(cell, -size if given < 0 else size)
                if symbol is None:
                    return None
                size = abs(symbol)
                if machine is not None:
                    states[column] = machine.leads[state][size & 1]
                found.append(
                    symbol if machine is None else side(symbol) * (2 * size - 1 if grid and size else 2 * size)
                )
                alike.learn(row, column, symbol)
                self._last[column], self._now[column] = self._now[column], symbol
                self._in_column[column] += size
                self._in_channel[column // places] += size
                self._in_row += size
            in_all += self._in_row
        return found

    def _symbol(self, cell: _Cell, truth: int) -> int | None:
        column, grid, usual, refined = cell.column, cell.grid, self._usual, self._learned.refined
        channel, places = column // self._layout.places, self._layout.places
        own = (64 * self._in_column[column] + 2 * usual) // (cell.row + 2)
        line = (64 * self._in_row + 2 * usual) // (column + 2)
        group = (64 * self._in_channel[channel] + 2 * usual) // (cell.row * places + 2)
        crossed, sure = own * line // max(usual, 1), _certainty(cell.expected)
        near, total, parts = self._around(column - cell.place, cell.place)
        known, sizes, slope, pattern = near
        now, last = self._now[column], self._last[column]
        previous = self._now[column - places] if channel else 0
        total += 64 * abs(now) + 64 * abs(previous) + 32 * abs(last)
        parts += 2 if channel else 1
        around = _size_of(4 * ((2 * total + 4 * crossed + 2 * group) // (2 * parts + 7)))
        product = _size_of(4 * crossed)
        cells = (
            (grid * 3 + known) * 16 + sizes,
            (grid * CLASSES + min(group.bit_length(), CLASSES - 1)) * 8 + sizes // 2,
            grid * 64 + 16 * min(abs(now), 3) + 4 * min(abs(last), 3) + min(abs(previous), 3),
            grid * _SIZES + product,
            grid * _SIZES + _size_of(4 * (group * line // max(usual, 1))),
            grid * _SIZES + _size_of(own),
            8 * sure + cell.state,
        )
        if not self._learned.filled.ask(self._step, cells, cell.state, truth != 0, refined[0][around]):
            return 0
        upper, expected = side(now) + 1, _SURE - 1 + (-sure if cell.expected < 0 else sure)
        two = 3 * (pattern % 3) + pattern // 3 % 3
        sides = (9 * known + two, 13 * grid + slope, 3 * upper + side(last) + 1, pattern + 81 * upper, expected)
        which = refined[1][13 * min(cell.place, _PLACES - 1) + slope]
        negative = self._learned.sign.ask(self._step, sides, 0, truth < 0, which)
        at = (sizes, min(line.bit_length(), CLASSES - 1), product, expected, around)
        size = self._sized(at, (int(negative), min(min(own.bit_length(), CLASSES - 1) // 3, 5)), abs(truth))
        return None if size > self._layout.half else -size if negative else size

    def _around(self, first: int, place: int) -> tuple[tuple[int, int, int, int], int, int]:
        """How many of the two closest places there are, how large all are, their signs together, the signs of four;
        the sum of sizes, in 1/64, and of how many."""
        known = sizes = slope = pattern = total = parts = 0
        for number, other in enumerate(self._neighbours[place]):
            value = 0 if other < 0 else self._now[first + other]
            if number < 4:
                pattern += 3**number * (side(value) + 1)
            if other >= 0:
                weight = 2 if number < 2 else 1
                known += number < 2
                sizes += weight * min(abs(value), 3)
                slope += weight * side(value)
                total += 64 * weight * abs(value)
                parts += weight
        return (known, min(sizes, 15), min(max(slope, -6), 6) + 6, pattern), total, parts

    def _sized(self, at: tuple[int, ...], low_at: tuple[int, int], size: int) -> int:
        """Size of a number that is not zero: how many bits, then the bits behind the first."""
        bits, most, learned = 0, max(0, self._layout.half.bit_length() - 1), self._learned
        while bits < most:
            chosen = 2 * bits + low_at[0]
            context = (
                *(16 * chosen + at[0], CLASSES * chosen + at[1]),
                *(_SIZES * chosen + at[2], _SIDES * chosen + at[3]),
            )
            which = learned.refined[2][_SIZES * chosen + at[4]]
            if not learned.longer.ask(self._step, context, chosen, size >> (bits + 1) > 0, which):
                break
            bits += 1
        found = 1
        for done in range(bits):
            tree = 32 * bits + (found if done < 5 else 0)
            context = (tree, 2 * tree + low_at[0], 6 * tree + low_at[1])
            answer = bool(size >> (bits - done - 1) & 1)
            found = 2 * found + learned.rest.ask(self._step, context, bits, answer, learned.refined[3][bits])
        return found


def _size_of(number: int) -> int:
    """Which quarter of an octave a number is of."""
    if number < 1:
        return 0
    bits = number.bit_length()
    quarter = (number >> (bits - 3) if bits >= 3 else number << (3 - bits)) & 3
    return min(max(4 * bits + quarter - 8, 0), _SIZES - 1)


def _certainty(expected: int) -> int:
    """Of what is expected: 0 where nothing is; the side apart."""
    found = 12 * abs(expected) >> 10
    return found if found < 8 else 8 + (found - 8) // 2 if found < 16 else min(12 + (found - 16) // 8, _SURE - 1)
