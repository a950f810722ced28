"""What the Tab key offers for options that take a name; for paths the shell offers files."""

from __future__ import annotations

from collections.abc import Callable, Iterable

__all__ = ["names"]


def names(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Completes to the known names, in order."""
    listed = sorted(known)

    def complete(incomplete: str) -> list[str]:
        return [name for name in listed if name.startswith(incomplete)]

    return complete
