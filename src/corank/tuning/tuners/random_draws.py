"""Random search, without repetition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from corank.tuning.space import Configuration
from corank.tuning.tuners.base import Known, Task, Tuner

__all__ = ["RandomDraws"]


@dataclass(frozen=True)
class RandomDraws(Tuner):
    """Every configuration as likely as its values are."""

    def propose(self, task: Task, known: Sequence[Known], random: Random) -> Configuration | None:
        return self.drawn(task.space, known, random)
