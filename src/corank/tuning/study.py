"""A study: ask the tuner, measure, tell, until there is enough."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from corank.calibration.seeds import seed_of
from corank.errors import BudgetError, ConfigError
from corank.progress import Progress
from corank.sizes import format_size
from corank.tuning.halving import is_promising, is_settled
from corank.tuning.space import Configuration, written
from corank.tuning.storage import Begun, Store
from corank.tuning.trial import COMPLETE, FAILED, PRUNED, Goal, Measure, Measurement, Trial, best_of
from corank.tuning.tuners import Known, Task, Tuner

__all__ = ["StudyPlan", "chosen_trial", "run_study", "shown"]

_REDUCTION = 3
_LONGEST = 300  # letters of a reason


@dataclass(frozen=True)
class StudyPlan:
    """How a study is run.

    Attributes:
        task: what the tuner knows before.
        tuner: what to try next.
        goal: what is wanted.
        trials: in all, those of earlier runs and other processes among them.
        rungs: shares of the data, ascending; the last is 1.
        patience: trials without a gain over noise after which it ends; None never ends it so.
        seed: of the tuner's draws and of every trial.
        command: that makes a configuration again.
        first: configurations that are tried before the tuner is asked.
    """

    task: Task
    tuner: Tuner
    goal: Goal
    trials: int
    rungs: tuple[float, ...]
    patience: int | None
    seed: int
    command: Callable[[Configuration], str]
    first: tuple[Configuration, ...] = ()


def run_study(store: Store, measure: Measure, plan: StudyPlan, progress: Progress) -> list[Trial]:
    """Measures until there are enough trials, nothing new, or no gain over noise; returns all trials.

    A trial that raises, or scores what is no number, is recorded and passed over. An interrupt leaves the one under way
    to the next run, and goes on to the caller.
    """
    while True:
        left = store.left_over()
        trials = store.trials()
        _tell(progress, trials, plan)
        if len(trials) >= plan.trials or (left is None and is_settled(trials, plan.goal, plan.patience)):
            return trials
        configuration = left or _proposed(trials, plan)
        if configuration is None:
            return trials
        begun = store.begin(plan.task.space, configuration, plan.trials)
        if begun is None:
            continue
        try:
            _measured(store, begun, measure, plan)
        except BaseException:
            store.give_up(begun)
            raise


def _proposed(trials: Sequence[Trial], plan: StudyPlan) -> Configuration | None:
    if len(trials) < len(plan.first):
        return plan.first[len(trials)]
    seen = [(one, one.measurement) for one in trials if one.state in (COMPLETE, PRUNED)]
    utilities = plan.goal.utilities([found for _, found in seen if found is not None])
    of = dict(zip((one.number for one, found in seen if found is not None), utilities, strict=True))
    known = [Known(one.configuration, of.get(one.number)) for one in trials]
    # Of the number of trials alone, so that a run that goes on draws as one that never stopped.
    return plan.tuner.propose(plan.task, known, Random(seed_of(plan.seed, "tuner", len(trials))))


def _measured(store: Store, begun: Begun, measure: Measure, plan: StudyPlan) -> None:
    started = time.perf_counter()
    state, reason = COMPLETE, ""
    try:
        for place, share in enumerate(plan.rungs):
            found = _checked(measure(begun.configuration, share))
            others = [
                one.rungs[place] for one in store.trials() if len(one.rungs) > place and one.number != begun.number
            ]
            store.add_rung(begun, found)
            last = place == len(plan.rungs) - 1
            if not last and not is_promising(found, others, plan.goal, _REDUCTION):
                state = PRUNED
                break
    except Exception as error:
        state, reason = FAILED, f"{type(error).__name__}: {error}"[:_LONGEST]
    seconds = time.perf_counter() - started
    told = {"seconds": seconds, "seed": plan.seed, "command": plan.command(begun.configuration), "reason": reason}
    store.end(begun, state, told)


def _checked(found: Measurement) -> Measurement:
    if not math.isfinite(found.score):
        raise ConfigError(f"the score is {found.score}, not a number")
    return found


def chosen_trial(trials: Sequence[Trial], goal: Goal) -> Trial:
    """The best one.

    Raises:
        BudgetError: where none meets the goal, naming the nearest. ConfigError: where none could be measured.
    """
    best = best_of(trials, goal)
    if best is not None:
        return best
    found = [(one, seen) for one in trials if one.state == COMPLETE and (seen := one.measurement) is not None]
    if not found:
        reasons = [one.reason for one in trials if one.reason] or ["none was begun"]
        raise ConfigError(f"none of {len(trials)} trials could be measured; the last: {reasons[-1]}")
    if goal.most is not None:
        trial, _ = min(found, key=lambda one: one[1].size_bytes or math.inf)
        raise BudgetError(
            f"no configuration of {len(trials)} is within {format_size(goal.most)}; the smallest, trial {trial.number} "
            f"({written(trial.configuration)}), has {shown(trial)}"
        )
    trial, _ = max(found, key=lambda one: one[1].score)
    raise BudgetError(
        f"no configuration of {len(trials)} scores {goal.least:g}; the best, trial {trial.number} "
        f"({written(trial.configuration)}), has {shown(trial)}"
    )


def shown(trial: Trial) -> str:
    """A trial's score and size for a person: "80.71 in 59.8 KB"."""
    found = trial.measurement
    if found is None:
        return "no score"
    return f"{found.score:.2f}" + ("" if found.size_bytes is None else f" in {format_size(found.size_bytes)}")


def _tell(progress: Progress, trials: Sequence[Trial], plan: StudyPlan) -> None:
    best = best_of(trials, plan.goal)
    done = sum(one.state in (COMPLETE, PRUNED, FAILED) for one in trials)
    progress("tuning" if best is None else f"tuning, best {shown(best)}", done, plan.trials)
