"""Every configuration in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from corank.tuning.space import Configuration, key_of
from corank.tuning.tuners.base import Known, Task, Tuner

__all__ = ["Grid"]


@dataclass(frozen=True)
class Grid(Tuner):
    """The order of the space, whatever the scores."""

    def propose(self, task: Task, known: Sequence[Known], random: Random) -> Configuration | None:
        tried = {key_of(one.configuration) for one in known}
        return next((one for one in task.space if key_of(one) not in tried), None)
