"""Classes by the name they have in plans and files, those of installed packages among them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from corank.errors import ConfigError

__all__ = ["Registry"]

T = TypeVar("T")
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class Registry(Mapping[str, type[T]], Generic[T]):
    """Name to class. A name that is not known is looked for among the entry points of installed packages, and loaded;
    names and classes are listed as far as they are known.

    Args:
        what: that is registered, in a word.
        base: every class is one.
        group: of entry points; ``name = "package.module:Class"`` in it makes a class known by name.
        own: those that are there from the start.
    """

    def __init__(self, what: str, base: type[T], group: str, own: Mapping[str, type[T]]) -> None:
        self._what, self._base, self._group, self._classes = what, base, group, dict(own)

    def register(self, name: str, cls: type[T]) -> None:
        """Makes ``cls`` known as ``name``; the same class again, as when a module is reloaded, replaces itself.

        Raises:
            ConfigError: for a name of another form or that is taken, or a class that plans and files could not hold.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} is no name for a {self._what}: lower case with hyphens, e.g. 'my-{self._what}'"
            )
        if not (isinstance(cls, type) and issubclass(cls, self._base)):
            raise ConfigError(f"register {name!r}: a subclass of {self._base.__name__}, not {cls!r}")
        frozen = is_dataclass(cls) and cls.__dataclass_params__.frozen  # pyright: ignore[reportAttributeAccessIssue]
        if not frozen or cls.__abstractmethods__:  # pyright: ignore[reportAttributeAccessIssue]
            raise ConfigError(
                f"register {name!r}: {cls.__name__} is to be a frozen dataclass that lacks no method, compared and "
                "written as JSON"
            )
        known = self._classes.get(name)
        if known is not None and _path(known) != _path(cls):
            raise ConfigError(f"the {self._what} {name!r} is {_path(known)} already; give {cls.__name__} another name")
        self._classes[name] = cls

    def load_installed(self) -> None:
        """Makes the classes of all installed packages known by name."""
        for name in self._points:
            self[name]

    def hint(self, cls: type) -> str:
        """The call that registers a class."""
        name = re.sub("(?<!^)(?=[A-Z])", "-", cls.__name__).lower()
        return f"corank.register_{self._what}({name!r}, {cls.__name__})"

    def __getitem__(self, name: str) -> type[T]:
        if name not in self._classes and name in self._points:
            self.register(name, self._points[name].load())
        return self._classes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._classes or name in self._points

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    @cached_property
    def _points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self._group)}


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
