"""A tuner: what to try next, from what is known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from corank.tuning.records import Record
from corank.tuning.space import Configuration, Space, key_of

__all__ = ["Known", "Task", "Tuner"]

_DRAWS = 200


@dataclass(frozen=True)
class Known:
    """A configuration that was tried.

    Attributes:
        utility: the higher the better; None while it is being measured, or where it failed.
    """

    configuration: Configuration
    utility: float | None


@dataclass(frozen=True)
class Task:
    """What a tuner knows before the first trial.

    Attributes:
        space: of the configurations.
        descriptors: of the model, by name.
        reference: what the float model scores; None where there is none.
        records: of other models in the same space.
    """

    space: Space
    descriptors: Mapping[str, float] = field(default_factory=dict)
    reference: float | None = None
    records: tuple[Record, ...] = ()


class Tuner(ABC):
    """A policy without memory: the same knowledge and the same random numbers propose the same, so that a study that
    was interrupted goes on as if it had not been."""

    @abstractmethod
    def propose(self, task: Task, known: Sequence[Known], random: Random) -> Configuration | None:
        """A configuration that is not known yet; None where there is none left.

        Args:
            task: what is known of model and space.
            known: what was tried, in order.
            random: of all draws.
        """

    def drawn(self, space: Space, known: Sequence[Known], random: Random) -> Configuration | None:
        """One that is not known, at random; None where there is none left."""
        tried = {key_of(one.configuration) for one in known}
        for _ in range(_DRAWS):
            found = space.draw(random)
            if key_of(found) not in tried:
                return found
        left = unknown(space, tried)
        return random.choice(left) if left else None

    def left(self, space: Space, known: Sequence[Known], random: Random) -> list[Configuration]:
        """What may be proposed: all that is not known or, of a large space, draws."""
        tried = {key_of(one.configuration) for one in known}
        if len(space.first(MOST)) < MOST:
            return unknown(space, tried)
        drawn = {key_of(one): one for one in (space.draw(random) for _ in range(MOST // 10))}
        return [one for key, one in drawn.items() if key not in tried]


MOST = 20_000  # configurations that are looked at one by one


def unknown(space: Space, tried: set[str]) -> list[Configuration]:
    """The configurations that were not tried, of the first 20,000."""
    return [one for one in space.first(MOST) if key_of(one) not in tried]
