"""Which choices mattered."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from corank.tuning.space import Space
from corank.tuning.trial import COMPLETE, Goal, Trial

__all__ = ["importance"]


def importance(space: Space, trials: Sequence[Trial], goal: Goal) -> list[dict[str, Any]]:
    """For each choice the share of the scores' variance between its values, most first, and each value's mean.

    Complete trials alone. What trials did not vary has no share; a share of few trials is rough, and choices that were
    tried together share what they explain.
    """
    done = [(one, seen) for one in trials if one.state == COMPLETE and (seen := one.measurement) is not None]
    scores = goal.utilities([seen for _, seen in done])
    found = []
    for choice in space.choices:
        groups: defaultdict[str, list[float]] = defaultdict(list)
        raw: defaultdict[str, list[float]] = defaultdict(list)
        for (trial, seen), score in zip(done, scores, strict=True):
            if choice.name in trial.configuration:
                value = json.dumps(trial.configuration[choice.name])
                groups[value].append(score)
                raw[value].append(seen.score)
        values = [{"value": json.loads(key), "trials": len(own), "score": fmean(own)} for key, own in raw.items()]
        found.append({"name": choice.name, "share": _explained(list(groups.values())), "values": values})
    return sorted(found, key=lambda one: -one["share"])


def _explained(groups: list[list[float]]) -> float:
    """The variance between groups over that of all: eta squared."""
    every = [score for group in groups for score in group]
    if len(every) < 2 or len(groups) < 2:
        return 0.0
    mean = fmean(every)
    total = sum((score - mean) ** 2 for score in every)
    between = sum(len(group) * (fmean(group) - mean) ** 2 for group in groups)
    return between / total if total > 0 else 0.0
