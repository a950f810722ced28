"""What a pruning is to reach, and how its units are weighed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from corank.errors import ConfigError

__all__ = ["METHODS", "Method", "Share", "chosen_method"]


@dataclass(frozen=True)
class Share:
    """A share of a network's cost.

    Attributes:
        value: between 0 and 1.
        of: "multiply-adds" or "parameters".
        round_to: channels left of a layer are multiples of it.
    """

    value: float
    of: str = "multiply-adds"
    round_to: int = 1

    @classmethod
    def read(cls, given: Any) -> Share:
        """A share as people write it: ``0.4`` or "0.4" of the multiply-adds, "0.4p" of the parameters.

        Raises:
            ConfigError: for anything else.
        """
        text = str(given) if type(given) in (int, float, str) else ""
        found = re.fullmatch(r"\s*(\d*\.?\d+)\s*(p?)\s*", text)
        if found is None or not 0 < float(found[1]) < 1:
            raise ConfigError(
                f"remove={given!r:.60}: a share between 0 and 1 of the multiply-adds, e.g. remove=0.4, or of the "
                'parameters, e.g. remove="0.4p"'
            )
        return cls(float(found[1]), "parameters" if found[2] else "multiply-adds")

    def __str__(self) -> str:
        return f"{self.value:g}{'p' if self.of == 'parameters' else ''}"


@dataclass(frozen=True)
class Method:
    """How units are weighed.

    Attributes:
        name: of the criterion: "perspective", "magnitude" or "first-order".
        draws: what draws units to zero while the network trains: "perspective", "group-lasso" or nothing.
        weight: of that penalty.
        alpha, bound: of the perspective penalty, and of its indicator as criterion.
        compensate: whether what reads channels that go is fitted to the outputs that it had, and batch norms are
            estimated anew; see :func:`~corank.pruning.compensation.compensate`.
    """

    name: str
    draws: str | None = None
    weight: float = 0.0
    alpha: float = 0.1
    bound: float = 1.0
    compensate: bool = True


METHODS: dict[str, Method] = {
    "first-order": Method("first-order"),
    "magnitude": Method("magnitude"),
    "perspective": Method("perspective", "perspective", 2.0),
    "group-lasso": Method("magnitude", "group-lasso", 2.0),
}
"""Methods by name."""


def chosen_method(method: str | Method) -> Method:
    """The method, or the one of that name.

    Raises:
        ConfigError: for an unknown name.
    """
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise ConfigError(f"method={method!r:.60}: one of {', '.join(METHODS)}")
    return METHODS[method]
