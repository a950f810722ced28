"""When to leave a trial, and when to leave a study: neither for what may be noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

from corank.tuning.trial import COMPLETE, PRUNED, Goal, Measurement, Trial, best_of

__all__ = ["is_promising", "is_settled"]


def is_promising(found: Measurement, others: Sequence[Measurement], goal: Goal, reduction: int) -> bool:
    """Whether a trial goes on to more data (successive halving, Jamieson and Talwalkar, 2016; asynchronous, Li et al.,
    2018): it is among the best ``1 / reduction`` of those that got so far, or behind them by no more than its standard
    error.

    Args:
        found: on this share of the data.
        others: of earlier trials, on the same share.
        goal: what is wanted.
        reduction: at least 2.
    """
    utilities = goal.utilities([*others, found])
    kept = math.ceil(len(utilities) / reduction)
    threshold = sorted(utilities, reverse=True)[kept - 1]
    noise = found.error if goal.least is None else 0.0
    return utilities[-1] + noise >= threshold


def is_settled(trials: Sequence[Trial], goal: Goal, patience: int | None) -> bool:
    """Whether the last ``patience`` trials raised the best utility by no more than its standard error."""
    done = [one for one in trials if one.state in (COMPLETE, PRUNED)]
    if patience is None or len(done) <= patience:
        return False
    before, now = (best_of(part, goal) for part in (done[:-patience], done))
    old, new = (None if one is None else one.measurement for one in (before, now))
    if old is None or new is None:
        return False
    noise = max(old.error, new.error) if goal.least is None else 0.0
    return goal.utility(new) - goal.utility(old) <= noise
