"""Tree-structured Parzen estimators (Bergstra et al., 2011), those of optuna."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from corank.tuning.optional import optuna
from corank.tuning.space import Configuration, key_of
from corank.tuning.tuners.base import Known, Task, Tuner

__all__ = ["Tpe"]

_TRIES = 10


@dataclass(frozen=True)
class Tpe(Tuner):
    """optuna's sampler, asked anew each time with all that is known.

    Args:
        startup: random trials that it begins with.
    """

    startup: int = 10

    def propose(self, task: Task, known: Sequence[Known], random: Random) -> Configuration | None:
        found = [one for one in known if one.utility is not None]
        if len(found) < self.startup:
            return self.drawn(task.space, known, random)
        tried = {key_of(one.configuration) for one in known}
        package = optuna()
        kinds = {
            choice.name: package.distributions.CategoricalDistribution(list(choice.values))
            for choice in task.space.choices
        }
        for _ in range(_TRIES):
            # Each choice by itself: optuna's joint estimate of choices with conditions is not settled yet.
            sampler = package.samplers.TPESampler(n_startup_trials=self.startup, seed=random.randrange(2**31))
            study = package.create_study(direction="maximize", sampler=sampler)
            for one in found:
                own = {name: kinds[name] for name in one.configuration}
                study.add_trial(
                    package.trial.create_trial(params=dict(one.configuration), distributions=own, value=one.utility)
                )
            asked, chosen = study.ask(), {}
            for choice in task.space.choices:
                if choice.holds(chosen):
                    chosen[choice.name] = asked.suggest_categorical(choice.name, list(choice.values))
            if key_of(chosen) not in tried:
                return chosen
        return self.drawn(task.space, known, random)
