"""What a run has to tell beside its result: said where it is found, collected where the run is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

__all__ = ["Notes", "collected_notes", "note"]


@dataclass
class Notes:
    """What was noted, in order.

    Attributes:
        texts: one or two sentences each, as keys: what is said again stands there once.
        numbers: by name, for records.
    """

    texts: dict[str, None] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)


_collecting: ContextVar[Notes | None] = ContextVar("_collecting", default=None)


def note(text: str, **numbers: int) -> None:
    """Adds one or two sentences, and numbers by name, to the run's notes; nothing where nobody collects them."""
    notes = _collecting.get()
    if notes is not None:
        notes.texts[text] = None
        notes.numbers.update(numbers)


@contextmanager
def collected_notes(about: str = "") -> Iterator[Notes]:
    """Collects what this thread notes within; an outer collection gets it as well, in the end.

    Args:
        about: put before every text once the block ends, such as the name of what it is about.
    """
    notes = Notes()
    token = _collecting.set(notes)
    try:
        yield notes
    finally:
        _collecting.reset(token)
        notes.texts = {f"{about}{text}": None for text in notes.texts}
        for text in notes.texts:
            note(text, **notes.numbers)
