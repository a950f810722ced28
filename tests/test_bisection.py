"""The bracket closes in on the place where the answer changes."""

from __future__ import annotations

import pytest

from corank.bisection import bisected


@pytest.mark.parametrize("place", [0.0, 0.3, 1.7, 2.0])
def test_closes_in(place: float) -> None:
    low, high = bisected(0.0, 2.0, lambda value: value > place, 40)
    assert low <= place + 1e-9 and high >= place - 1e-9 and high - low <= 2 * 2.0**-40


def test_asks_no_more_than_it_says() -> None:
    asked: list[float] = []
    assert bisected(-1.0, 1.0, lambda value: bool(asked.append(value)), 3) == (0.75, 1.0)
    assert asked == [0.0, 0.5, 0.75]
