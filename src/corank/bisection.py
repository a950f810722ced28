"""One bisection for all that is searched on a line."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["bisected"]


def bisected(low: float, high: float, beyond: Callable[[float], bool], halvings: int) -> tuple[float, float]:
    """The bracket ``(low, high)`` halved so often: ``beyond`` is false at its low end and true at its high end.

    Neither end is asked: with ``beyond`` false everywhere the bracket closes in on ``high``. It may be asked for values
    that float arithmetic cannot tell from an end; the bracket then stays as it is.
    """
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return low, high
