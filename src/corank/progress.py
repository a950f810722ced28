"""What long work says of itself while it runs."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "labelled", "silent"]

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""


def silent(what: str, done: int, total: int) -> None:
    """The progress that nobody sees: what stands in where none was given."""


def labelled(progress: Progress, label: str) -> Progress:
    """The callback, told what is being done with a label before it."""
    return lambda what, done, total: progress(f"{label}: {what}", done, total)
