"""Options in groups: a command takes a group as one parameter, and the command line each of its options by itself."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from inspect import Parameter
from typing import Any, get_type_hints

__all__ = ["flat"]


def flat(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of each group of options in its place.

    Args:
        command: parameters whose type is a dataclass are groups; their fields are annotated as options are.

    Raises:
        ValueError: two options of one name.
    """
    own = inspect.signature(command, eval_str=True).parameters
    groups: dict[str, Any] = {name: one.annotation for name, one in own.items() if is_dataclass(one.annotation)}
    options = {name: _options(kind) for name, kind in groups.items()}

    @functools.wraps(command)
    def run(**given: Any) -> None:
        made = {
            name: kind(**{one.name: given.pop(one.name) for one in options[name] if one.name in given})
            for name, kind in groups.items()
        }
        command(**given, **made)

    parts = [part for name, one in own.items() for part in options.get(name, [one])]
    named = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in parts]
    run.__dict__["__signature__"] = inspect.Signature(named)
    run.__annotations__ = {one.name: one.annotation for one in named}
    return run


def _options(kind: Any) -> list[Parameter]:
    """A group's options, in their order."""
    hints = get_type_hints(kind, include_extras=True)
    return [one.replace(annotation=hints[name]) for name, one in inspect.signature(kind).parameters.items()]
