"""What other models' records rank best, corrected by what configurations like it scored here: kriging over choices."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from corank.errors import ConfigError
from corank.tuning.records import Record
from corank.tuning.space import Configuration, Space, key_of
from corank.tuning.tuners.base import Known, Task, Tuner

__all__ = ["Recorded"]

Numbers = NDArray[np.float64]
_FLOOR = 1e-3  # points: scores of a record that lie closer are alike
_TIE = 1e-9


@dataclass(frozen=True)
class Recorded(Tuner):
    """The mean of a Gaussian process, plus some of its deviation.

    Its mean before the first trial is the mean over records of a configuration's normalized rank in each, standardized;
    its covariance the product over choices of 1 where two configurations agree and ``likeness`` where they do not.
    A trial counts by how far it is above the mean of all trials, in units of the records' spread (half the distance of
    their 16th and 84th percentiles), less what the records expected of that. Without records it draws at random.

    Args:
        likeness: of two values of a choice, above 0 and below 1.
        noise: variance of a score beside that of the process.
        deviation: how many standard deviations are added: what is unknown is tried earlier.
    """

    likeness: float = 0.5
    noise: float = 0.5
    deviation: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.likeness < 1 or self.noise <= 0 or self.deviation < 0:
            raise ConfigError(
                f"{self}: likeness above 0 and below 1, noise above 0, deviation from 0 on, e.g. Recorded(likeness=0.5)"
            )

    def propose(self, task: Task, known: Sequence[Known], random: Random) -> Configuration | None:
        if not any(one.trials for one in task.records):
            return self.drawn(task.space, known, random)
        left = self.left(task.space, known, random)
        if not left:
            return None
        scored = [(one.configuration, one.utility) for one in known if one.utility is not None]
        configurations = [*(one for one, _ in scored), *left]
        expected = _standardized(np.mean([_ranks(one, configurations) for one in task.records], axis=0))
        utilities = np.array([utility for _, utility in scored])
        worth = self._worth(task, configurations, expected, utilities)
        best = np.flatnonzero(worth >= worth.max() - _TIE)
        return left[int(random.choice(best.tolist()))]

    def _worth(
        self, task: Task, configurations: Sequence[Configuration], expected: Numbers, utilities: Numbers
    ) -> Numbers:
        """Of those that have no utility yet, which come after those that have one."""
        count = len(utilities)
        if not count:
            return expected
        alike = _likeness(task.space, configurations, count, self.likeness)  # (all, tried)
        spread = np.mean([_spread(one) for one in task.records])
        surprise = (utilities - utilities.mean()) / spread - (expected[:count] - expected[:count].mean())
        solved = np.linalg.solve(alike[:count] + self.noise * np.eye(count), np.c_[surprise, alike.T])
        variance = 1 - np.einsum("at,ta->a", alike, solved[:, 1:])
        found = expected + alike @ solved[:, 0] + self.deviation * np.sqrt(np.clip(variance, 0, None))
        return found[count:]


def _ranks(record: Record, configurations: Sequence[Configuration]) -> Numbers:
    """From 0 for the worst of a record to 1 for the best, ties in the middle; a half for what it has not."""
    scores: Mapping[str, float] = {key_of(one): score for one, score in record.trials}
    every = np.sort(np.array(list(scores.values())))
    known = np.array([scores.get(key_of(one), np.nan) for one in configurations])
    below, upto = np.searchsorted(every, known, "left"), np.searchsorted(every, known, "right")
    return np.where(np.isnan(known), 0.5, (below + upto) / 2 / max(1, len(every)))


def _standardized(values: Numbers) -> Numbers:
    return (values - values.mean()) / max(float(values.std()), _TIE)


def _spread(record: Record) -> float:
    low, high = np.quantile([score for _, score in record.trials] or [0.0], (0.16, 0.84))
    return max(float(high - low) / 2, _FLOOR)


def _likeness(space: Space, configurations: Sequence[Configuration], count: int, other: float) -> Numbers:
    """Of every configuration with the first ``count``: ``(all, count)``."""
    found = np.ones((len(configurations), count))
    for choice in space.choices:
        values = np.array([json.dumps(one[choice.name]) if choice.name in one else "" for one in configurations])
        found *= np.where(values[:, None] == values[None, :count], 1.0, other)
    return found
