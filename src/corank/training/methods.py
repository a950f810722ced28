"""What methods of training there are, as their own pages of code say."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass

from corank.errors import ConfigError
from corank.training.recipe import Recipe
from corank.training.recipes import RECIPES
from corank.training.recipes.rate import rate

__all__ = ["Method", "methods"]

_INPUTS = (1, 2, 4, 8)  # widths of inputs that a method is tried with


@dataclass(frozen=True)
class Method:
    """One published way of training.

    Attributes:
        name: as recipes' names begin with it.
        bits: of weights that it takes; none where the name stands alone.
        inputs: "float", "low bits" or "either".
        paper: its first line, the paper.
        status: "verified" against the paper's equations or code, "reconstruction", or "ours".
    """

    name: str
    bits: tuple[int, ...]
    inputs: str
    paper: str
    status: str


def methods() -> list[Method]:
    """All of :data:`~corank.training.recipes.RECIPES` by name, and what trains to a rate or a size."""
    to_a_rate = Method("rate", (), "float", _paper(rate), _status(rate))
    return [*(_method(name, make) for name, make in sorted(RECIPES.items())), to_a_rate]


def _method(name: str, make: Callable[[int, int | None], Recipe]) -> Method:
    plain = [width for width in range(1, 9) if _takes(make, width, None)]
    rounded = [width for width in range(1, 9) if any(_takes(make, width, inputs) for inputs in _INPUTS)]
    inputs = "either" if plain and rounded else "low bits" if rounded else "float"
    return Method(name, tuple(sorted({*plain, *rounded})), inputs, _paper(make), _status(make))


def _paper(make: Callable[..., Recipe]) -> str:
    """The first line of a recipe's page of code."""
    line = (sys.modules[make.__module__].__doc__ or make.__name__).strip().splitlines()[0]
    return line.rstrip(".").removesuffix(", a reconstruction")


def _takes(make: Callable[[int, int | None], Recipe], bits: int, inputs: int | None) -> bool:
    try:
        make(bits, inputs)
    except ConfigError:
        return False
    return True


def _status(make: Callable[..., Recipe]) -> str:
    """What a recipe's own text says of itself; what is a reconstruction as a whole may be verified in parts."""
    said = (inspect.getdoc(make) or "").lower()
    return next((word for word in ("reconstruction", "verified") if word in said), "ours")
