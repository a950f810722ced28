"""Frozen dataclasses to plain JSON and back, by their ``kind``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from corank.errors import ConfigError
from corank.registry import Registry

__all__ = ["check_progress", "choose", "from_json", "to_json"]

T = TypeVar("T")
Json = dict[str, Any]


def choose(name: str, table: Mapping[str, T], what: str) -> T:
    """The entry of ``table`` called ``name``.

    Raises:
        ConfigError: naming the known ones, and the closest.
    """
    if isinstance(name, str) and name in table:  # a name read from a file may be anything
        return table[name]
    close = difflib.get_close_matches(str(name), table, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ConfigError(f"no {what} is called {name!r}; known: {', '.join(sorted(table))}{hint}")


def check_progress(progress: object) -> None:
    """Raises ConfigError for a ``progress`` that cannot be called."""
    if progress is not None and not callable(progress):
        raise ConfigError(f"progress={progress!r:.60}: a function of (what, done, total), e.g. progress=print")


def to_json(value: Any, table: Mapping[str, type]) -> Json:
    """A registered frozen dataclass of numbers and strings as ``{"kind": ..., field: value, ...}``.

    Fields at their default are left out, so that a person reads only what was chosen.
    """
    chosen = {field.name: getattr(value, field.name) for field in fields(value)}
    defaults = {field.name: field.default for field in fields(value)}
    told = {name: item for name, item in chosen.items() if item != defaults[name]}
    listed = {name: list(item) if isinstance(item, tuple) else item for name, item in told.items()}
    return {"kind": _kind_of(value, table), **listed}


def _kind_of(value: Any, table: Mapping[str, type]) -> str:
    """The name of a value's class."""
    kinds = {entry: kind for kind, entry in table.items()}
    if type(value) not in kinds and isinstance(table, Registry):
        table.load_installed()
        kinds = {entry: kind for kind, entry in table.items()}
    if type(value) in kinds:
        return kinds[type(value)]
    hint = f"; {table.hint(type(value))} registers it" if isinstance(table, Registry) else ""
    raise ConfigError(f"{type(value).__name__} is not registered; known: {', '.join(sorted(table))}{hint}")


def from_json(data: Any, table: Mapping[str, type[T]], what: str) -> T:
    """The inverse of :func:`to_json`; unknown kinds, fields and types of value are errors."""
    if not isinstance(data, dict) or "kind" not in data:
        raise ConfigError(f'a {what} is written {{"kind": NAME, ...}}, not {str(data)[:80]!r}')
    entry = choose(data["kind"], table, what)
    known = {field.name for field in fields(entry)}  # pyright: ignore[reportArgumentType]
    given = {name: item for name, item in data.items() if name != "kind"}
    unknown = sorted(set(given) - known)
    if unknown:
        raise ConfigError(f"{what} {data['kind']!r} has no field {unknown[0]!r}; it has {', '.join(sorted(known))}")
    defaults = {field.name: field.default for field in fields(entry)}  # pyright: ignore[reportArgumentType]
    for name, item in given.items():
        given[name] = item = tuple(item) if isinstance(item, list) else item
        if not _is_plain(item) or not _is_like(item, defaults[name]):
            raise ConfigError(
                f"{what} {data['kind']!r} has {name}={str(item)[:80]!r}; every field is a finite number, a string, "
                f"true, false, null or a list of numbers, here of the type of {defaults[name]!r}"
            )
    try:
        return entry(**given)
    except TypeError as error:
        raise ConfigError(f"{what} {data['kind']!r}: {error}") from error


def _is_plain(item: Any) -> bool:
    """Whether it is a finite number, a string, true, false, null or some finite numbers."""
    if isinstance(item, (int, float)):
        return abs(item) < 1e300
    if isinstance(item, tuple):
        return all(isinstance(one, (int, float)) and _is_plain(one) for one in item)
    return item is None or isinstance(item, str)


def _is_like(item: Any, default: Any) -> bool:
    """Whether it is of the default's type; a whole number will do for a fraction."""
    if not isinstance(default, (bool, int, float, str, tuple)):
        return True
    return type(item) is type(default) or (type(default) is float and type(item) is int)
