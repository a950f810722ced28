"""What a page and a terminal say of an analysis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from corank.reports.fields import Record, clean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["AnalysisView", "Drawing", "TableView", "notes", "of_analysis", "reasons"]


@dataclass(frozen=True)
class TableView:
    """A table; its first ``left`` columns are texts."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    left: int = 1


@dataclass(frozen=True)
class Drawing:
    """A picture that can be drawn: what it shows in words, and how to read it."""

    draw: Callable[[], Figure]
    description: str
    caption: str


@dataclass(frozen=True)
class AnalysisView:
    """One analysis.

    Attributes:
        title: the question, as a reader would ask it.
        verdict: the answer in a sentence or two.
        cards: name, value and note of the numbers that stand on top.
        tables: for those who want all of it.
        drawings: the first is the one that answers the question.
        remarks: what holds with a reservation.
        without_theory: layers that nothing is said of, and why.
    """

    title: str
    verdict: str
    cards: list[tuple[str, str, str]]
    tables: list[TableView]
    drawings: list[Drawing] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    without_theory: list[tuple[str, str]] = field(default_factory=list)


def of_analysis(run: Record) -> Record:
    """What the analysis found."""
    found = run.get("analysis")
    return found if isinstance(found, Mapping) else {}


def notes(found: Record) -> list[str]:
    """What holds with a reservation."""
    given = found.get("notes")
    return [clean(str(one), 500) for one in given] if isinstance(given, list) else []


def reasons(found: Record, key: str = "no_theory") -> list[tuple[str, str]]:
    """Names and reasons under a key."""
    given = found.get(key)
    if not isinstance(given, Mapping):
        return []
    return [(clean(str(name)) or "(model)", clean(str(why), 500)) for name, why in given.items()]
