"""A genetic search: the best so far are crossed and mutated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from corank.tuning.space import Configuration, key_of
from corank.tuning.tuners.base import Known, Task, Tuner

__all__ = ["Genetic"]

_TRIES = 50


@dataclass(frozen=True)
class Genetic(Tuner):
    """One child at a time of two parents, each the better of two drawn from the best; every choice from either parent,
    and redrawn with the probability of mutation.

    Args:
        population: the best that parents come from, and the random ones that the search begins with.
        mutation: probability that a choice is redrawn.
    """

    population: int = 8
    mutation: float = 0.15

    def propose(self, task: Task, known: Sequence[Known], random: Random) -> Configuration | None:
        scored = [(one.utility, one.configuration) for one in known if one.utility is not None]
        if len(scored) < self.population:
            return self.drawn(task.space, known, random)
        parents = sorted(scored, key=lambda one: -one[0])[: self.population]
        tried = {key_of(one.configuration) for one in known}
        for _ in range(_TRIES):
            mother, father = (max(random.sample(parents, 2), key=lambda one: one[0])[1] for _ in range(2))
            names = [choice.name for choice in task.space.choices if random.random() >= self.mutation]
            mixed = {name: parent[name] for name in names if name in (parent := random.choice((mother, father)))}
            child = task.space.completed(mixed, random)
            if key_of(child) not in tried:
                return child
        return self.drawn(task.space, known, random)
