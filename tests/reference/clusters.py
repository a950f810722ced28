"""Levels for a list of numbers by loops and by trying everything."""

from __future__ import annotations

import itertools
import math


def optimal_kmeans(numbers: list[float], count: int, weights: list[float]) -> float:
    """The least weighted squared error of ``count`` levels, by dynamic programming over cuts of the sorted numbers."""
    pairs = sorted(zip(numbers, weights, strict=True))

    def error(start: int, end: int) -> float:
        mass = sum(weight for _, weight in pairs[start:end])
        if mass == 0:
            return 0.0
        mean = sum(number * weight for number, weight in pairs[start:end]) / mass
        return sum(weight * (number - mean) ** 2 for number, weight in pairs[start:end])

    best = [error(0, end) for end in range(len(pairs) + 1)]
    for _ in range(count - 1):
        best = [min(best[cut] + error(cut, end) for cut in range(end + 1)) for end in range(len(pairs) + 1)]
    return best[-1]


def grid(numbers: list[float], count: int) -> list[float]:
    """UQ: multiples of 0.0001, 0.0006, 0.0011, ... of the largest magnitude, until there are few enough."""
    largest, turn = max(map(abs, numbers)), 0
    while True:
        step = (1e-4 + 5e-4 * turn) * largest
        found = sorted({round(number / step) for number in numbers})
        if len(found) <= count:
            return [step * whole for whole in found]
        turn += 1


def lagrangian(numbers: list[float], levels: list[float], price: float) -> float:
    """``mean((w - c)^2) - price mean(ln p(c))`` with every number at its closest level."""
    chosen = [min(range(len(levels)), key=lambda place: abs(levels[place] - number)) for number in numbers]
    return of_choice(numbers, levels, chosen, price)


def of_choice(numbers: list[float], levels: list[float], chosen: list[int], price: float) -> float:
    """The same where the levels are chosen already."""
    share = [chosen.count(place) / len(numbers) for place in range(len(levels))]
    error = sum((number - levels[place]) ** 2 for number, place in zip(numbers, chosen, strict=True)) / len(numbers)
    return error - price * sum(part * math.log(part) for part in share if part)


def best_lagrangian(numbers: list[float], count: int, price: float) -> float:
    """The least Lagrangian of at most ``count`` levels, over all ways to cut the sorted numbers."""
    ordered, best = sorted(numbers), math.inf
    for used in range(1, count + 1):
        for cuts in itertools.combinations(range(1, len(ordered)), used - 1):
            ends = [0, *cuts, len(ordered)]
            parts = [ordered[start:end] for start, end in itertools.pairwise(ends)]
            levels = [sum(part) / len(part) for part in parts]
            chosen = [place for place, part in enumerate(parts) for _ in part]
            best = min(best, of_choice(ordered, levels, chosen, price))
    return best
