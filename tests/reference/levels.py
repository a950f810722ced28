"""Codecs of fixed levels by loops over single numbers, as the papers and their code state them."""

from __future__ import annotations

import itertools
import math


def power_of_two(number: float, bits: int, closest_logarithm: bool) -> float:
    """A number, the scale being 1, as zero or a signed power of two at most 1."""
    least = -(2 ** (bits - 1) - 2)
    if abs(number) < 2.0 ** (least - 1):
        return 0.0
    if closest_logarithm:
        exponent = min(0, max(least, math.floor(math.log2(abs(number)) + 0.5)))
        return math.copysign(2.0**exponent, number)
    values = [2.0**exponent for exponent in range(least, 1)]
    return math.copysign(min(values, key=lambda value: abs(value - abs(number))), number)


def additive_powers(bits: int) -> list[float]:
    """Magnitudes of APoT: exponents 1, 2, 3, ... are dealt to the terms in turn, three to a term of two bits.

    A term of one bit, where the number of magnitude bits is odd, is dealt one, before the last round.
    """
    terms: list[list[float]] = [[0.0] for _ in range((bits - 1) // 2)]
    single: list[float] = [0.0]
    exponent = 0
    for turn in range(3):
        odd = turn == 2 and bits % 2 == 0
        for term in [*([single] if odd else []), *terms]:
            exponent += 1
            term.append(2.0**-exponent)
    sums = sorted({sum(chosen) for chosen in itertools.product(single, *terms)})
    return [value / sums[-1] for value in sums]


def dense_shift(bits: int) -> list[float]:
    """All weights of the sign and scale decomposition: ``S_j = (S_(j-1) + 1) b_j``, ``w = sign 2^S``."""
    found = set()
    for pattern in itertools.product((0, 1), repeat=2 ** (bits - 1) - 1):
        shift = 0
        for bit in pattern:
            shift = (shift + 1) * bit
        found |= {2.0**shift, -(2.0**shift)}
    return sorted(found)


def s3() -> list[float]:
    """All weights of ``sign [sparse] 2^S`` with ``S = b_1 (b_2 + 1)``."""
    patterns = itertools.product((-1, 1), (0, 1), (0, 1), (0, 1))
    return sorted({float(sign * sparse * 2 ** (first * (second + 1))) for sign, sparse, first, second in patterns})


def statsq(row: list[float], bits: int, scale: float) -> list[float]:
    """``s (round(clip(w / s, -1, 1 - 1e-6) n - 1/2) + 1/2) / n``."""
    half = 2 ** (bits - 1)
    clipped = [max(-1.0, min(1 - 1e-6, number / scale)) for number in row]
    return [scale * (round(number * half - 0.5) + 0.5) / half for number in clipped]


def bcgd(row: list[float], bits: int) -> list[float]:
    """One, two (beyond 0.7 of the mean) and four bits (in fifteenths of the largest), as the authors' code has them."""
    size = [abs(number) for number in row]
    mean = sum(size) / len(size)
    if bits == 1:
        return [mean if number >= 0 else -mean for number in row]
    whole = []
    for number in size:
        if bits == 2:
            whole.append(int(number > 0.7 * mean))
            continue
        delta, steps = max(size) / 15, 0
        while steps < 7 and number > (2 * steps + 1) * delta * (1 + 1e-12):
            steps += 1
        whole.append(steps)
    scale = sum(s * k for s, k in zip(size, whole, strict=True)) / sum(k * k for k in whole)
    return [math.copysign(scale * k, number) for k, number in zip(whole, row, strict=True)]


def least_error(row: list[float], levels: list[float], scales: list[float]) -> float:
    """The least squared error of a row over the given scales, each number going to its closest value."""
    return min(sum(min((scale * level - number) ** 2 for level in levels) for number in row) for scale in scales)


def ternary(row: list[float]) -> tuple[float, float]:
    """The scale of least squared error and that error, by trying every set of the largest magnitudes."""
    best = (0.0, math.inf)
    ordered = sorted(map(abs, row), reverse=True)
    for count in range(1, len(ordered) + 1):
        scale = sum(ordered[:count]) / count
        error = sum((number - scale) ** 2 for number in ordered[:count]) + sum(n * n for n in ordered[count:])
        best = min(best, (scale, error), key=lambda pair: pair[1])
    return best
