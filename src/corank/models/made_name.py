"""The names of networks that are made here: ``10,rate=8000``, the classes and then what is not as usual."""

from __future__ import annotations

from collections.abc import Collection

from corank.errors import ConfigError

__all__ = ["read_name"]


def read_name(name: str, known: Collection[str]) -> tuple[str, dict[str, str]]:
    """What stands for the classes, and the settings by name, as they are written.

    Args:
        name: what follows the kind of network and its colon.
        known: settings that there are; each may be given once.

    Raises:
        ConfigError: for another setting, or one given twice.
    """
    classes, *others = name.split(",")
    given: dict[str, str] = {}
    for one in others:
        key, _, value = one.partition("=")
        if key not in known or key in given:
            raise ConfigError(f"{one[:60]!r}: one of {', '.join(known)}, each once")
        given[key] = value
    return classes, given
