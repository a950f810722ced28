"""Quantune (arXiv 2202.05048): gradient-boosted trees predict the score of every configuration, and the best predicted
one is measured next. A reconstruction: of the tuner itself the paper's text was not at hand."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from corank.tuning.space import Configuration, Space
from corank.tuning.trees import fitted_trees
from corank.tuning.tuners.base import Known, Task, Tuner

__all__ = ["BoostedTrees", "features"]

Numbers = NDArray[np.float64]
_FLOOR = 0.1  # points: losses below are alike


@dataclass(frozen=True)
class BoostedTrees(Tuner):
    """Trees over configurations, one column for each value, beside descriptors of the model.

    The trees learn the logarithm of the points lost against the float network where that is known, so that the few
    configurations that destroy a network do not outweigh the many that differ little (the paper's target is accuracy).

    Args:
        startup: random trials before the first fit; none where there are records of other models.
        own: weight of this model's trials beside those of a record.
    """

    startup: int = 4
    own: float = 4.0

    def propose(self, task: Task, known: Sequence[Known], random: Random) -> Configuration | None:
        scored = [(one.configuration, one.utility) for one in known if one.utility is not None]
        others = [(one, *trial) for one in task.records for trial in one.trials]
        if len(scored) < (1 if others else self.startup) and not others:
            return self.drawn(task.space, known, random)
        left = self.left(task.space, known, random)
        if len(left) < 2:
            return left[0] if left else None
        names = sorted({*task.descriptors, *(name for one in task.records for name in one.descriptors)})
        reference = task.reference
        worth = [_worth(score, reference) for _, score in scored]
        rows = [features(task.space, one, task.descriptors, names) for one, _ in scored]
        rows += [features(task.space, one, record.descriptors, names) for record, one, _ in others]
        worth += [_worth(score, record.reference) for record, _, score in others]
        weights = [self.own if others else 1.0] * len(scored) + [1.0] * len(others)
        predict = fitted_trees(np.stack(rows), np.array(worth), np.array(weights), random.randrange(2**31))
        found = predict(np.stack([features(task.space, one, task.descriptors, names) for one in left]))
        best = np.flatnonzero(found == found.max())
        return left[int(random.choice(best.tolist()))]


def features(
    space: Space, configuration: Configuration, descriptors: Mapping[str, float], names: Sequence[str]
) -> Numbers:
    """One row: 1 for each value that was chosen, 0 for the others; numbers also as they are; then the descriptors."""
    row: list[float] = []
    for choice in space.choices:
        chosen = json.dumps(configuration[choice.name]) if choice.name in configuration else None
        row += [float(json.dumps(value) == chosen) for value in choice.values]
        value = configuration.get(choice.name)
        row.append(float(value) if isinstance(value, (int, float)) else -1.0)
    return np.array([*row, *(descriptors.get(name, 0.0) for name in names)], dtype=np.float64)


def _worth(score: float, reference: float | None) -> float:
    return score if reference is None else -math.log10(max(reference - score, 0.0) + _FLOOR)
