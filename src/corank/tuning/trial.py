"""What measuring a configuration gives, what is wanted of it, and which of several is best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from corank.errors import ConfigError
from corank.sizes import parse_size
from corank.tuning.space import Configuration

__all__ = ["COMPLETE", "FAILED", "PRUNED", "RUNNING", "Goal", "Measure", "Measurement", "Trial", "best_of", "front_of"]

COMPLETE, PRUNED, FAILED, RUNNING = "complete", "pruned", "failed", "running"


@dataclass(frozen=True)
class Measurement:
    """What one configuration is worth.

    Attributes:
        score: higher is better; percent for the spaces that ship.
        error: the score's standard error, 0 where nothing is known of it: differences up to it are noise.
        size_bytes: of the file; None where there is none.
        latency_ms: of one sample; None where it was not asked for.
        samples: that were scored.
        sha256: of the file, by which it is known again.
    """

    score: float
    error: float = 0.0
    size_bytes: int | None = None
    latency_ms: float | None = None
    samples: int | None = None
    sha256: str | None = None


Measure = Callable[[Configuration, float], Measurement]
"""Called with a configuration and the share of the data to look at, above 0 up to 1."""


@dataclass(frozen=True)
class Trial:
    """A configuration that was, or is being, measured.

    Attributes:
        number: in its study, from 0.
        state: "complete", "pruned" (left after a cheap look), "failed" or "running".
        rungs: what it measured on each share of the data, the cheapest first; all of the data last.
        seconds: that it took.
        seed: of its draws.
        command: that makes it again, to the same bytes; empty where a user's own function measures.
        reason: why it failed.
    """

    number: int
    state: str
    configuration: Configuration
    rungs: tuple[Measurement, ...] = ()
    seconds: float = 0.0
    seed: int = 0
    command: str = ""
    reason: str = ""

    @property
    def measurement(self) -> Measurement | None:
        """Of the last rung that it reached."""
        return self.rungs[-1] if self.rungs else None


@dataclass(frozen=True)
class Goal:
    """What is wanted: the best score, within a size, or the smallest file of a score.

    Args:
        size: bytes that the file may have, or a text such as "60KB"; None for any.
        least: score that is good enough, for the smallest file that has it; None for the best score.
    """

    size: int | str | None = None
    least: float | None = None
    most: int | None = field(init=False)

    def __post_init__(self) -> None:
        if self.size is not None and self.least is not None:
            raise ConfigError("size and least were both given: the best score within a size, or the smallest file")
        object.__setattr__(self, "most", None if self.size is None else parse_size(self.size))
        if self.least is not None and (isinstance(self.least, bool) or not math.isfinite(self.least)):
            raise ConfigError(f"least={self.least!r}: a score, such as least=80.0")

    def met(self, found: Measurement) -> bool:
        """Whether it is within the size, or good enough."""
        if self.most is not None:
            return found.size_bytes is not None and found.size_bytes <= self.most
        return self.least is None or found.score >= self.least

    def utility(self, found: Measurement) -> float:
        """What is to be as large as possible, among those that meet the goal: score, or less bytes."""
        return found.score if self.least is None else -float(found.size_bytes or 0)

    def utilities(self, found: Sequence[Measurement]) -> list[float]:
        """One number each: above all others where the goal is met, and the nearer to it the higher where it is not."""
        met = [self.utility(one) for one in found if self.met(one)]
        floor = min(met, default=0.0) - 1.0
        return [self.utility(one) if self.met(one) else floor - self._missed(one) for one in found]

    def _missed(self, found: Measurement) -> float:
        if self.most is not None:
            return (found.size_bytes or 0) / self.most
        return (self.least or 0.0) - found.score

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"size": self.most, "least": self.least}


def best_of(trials: Sequence[Trial], goal: Goal) -> Trial | None:
    """The complete trial of most utility that meets the goal; of equal ones the smallest file, then the fastest, then
    the first. None where there is none."""
    found = [(one, one.measurement) for one in trials if one.state == COMPLETE]
    met = [(one, seen) for one, seen in found if seen is not None and goal.met(seen)]

    def order(pair: tuple[Trial, Measurement]) -> tuple[float, ...]:
        trial, seen = pair
        size = math.inf if seen.size_bytes is None else seen.size_bytes
        latency = math.inf if seen.latency_ms is None else seen.latency_ms
        return (-goal.utility(seen), size, latency, trial.number)

    return min(met, key=order)[0] if met else None


def front_of(trials: Sequence[Trial]) -> list[Trial]:
    """The complete trials that no other one beats in both score and size, the smallest first."""
    known = [(one, seen) for one in trials if one.state == COMPLETE and (seen := one.measurement) is not None]
    sized = [(seen.size_bytes, -seen.score, one.number, one) for one, seen in known if seen.size_bytes is not None]
    found: list[Trial] = []
    best = math.inf
    for _, loss, _, trial in sorted(sized, key=lambda one: one[:3]):
        if loss < best:
            best = loss
            found.append(trial)
    return found
