"""What a file's bytes are for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from corank.reports.cells import show_bytes
from corank.reports.fields import Record, number
from corank.reports.plots.style import (
    BLUE,
    MUTED,
    NOTE_SIZE,
    ORANGE,
    PAGE_INCHES,
    PURPLE,
    SOFT,
    label_layers,
    new_figure,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["can_draw", "describe", "draw"]

PARTS = (("codes", BLUE), ("scales", ORANGE), ("adapter", PURPLE), ("other tensors", SOFT), ("header", MUTED))


def can_draw(run: Record) -> bool:
    """Whether the run says what its bytes are for."""
    return sum(_parts(run).values()) > 0


def describe(run: Record) -> str:
    """What the picture shows, in words."""
    return "; ".join(f"{part}: {note}" for part, note in _notes(run).items()) + "."


def draw(run: Record) -> Figure:
    """One bar per part of the file, with its bytes and its share."""
    parts, notes = _parts(run), _notes(run)
    figure = new_figure(0.85 + 0.26 * len(PARTS), PAGE_INCHES)
    axes = figure.subplots()
    axes.barh(range(len(PARTS)), list(parts.values()), height=0.66, color=[colour for _, colour in PARTS])
    style_axes(axes, "What the bytes are for", "", "", grid="x")
    label_layers(axes, list(parts))
    axes.set_xlim(0, max([*parts.values(), 1.0]) * 1.45)
    axes.set_xticks([])
    for place, (part, note) in enumerate(notes.items()):
        axes.annotate(
            note, (parts[part], place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=NOTE_SIZE,
            color=MUTED,
        )  # fmt: skip
    return figure


def _parts(run: Record) -> dict[str, float]:
    stored = run.get("stored_parts")
    found = stored if isinstance(stored, Mapping) else {}
    return {part: max(0.0, number(found, part) or 0.0) for part, _ in PARTS}


def _notes(run: Record) -> dict[str, str]:
    parts = _parts(run)
    total = sum(parts.values()) or 1.0
    return {part: f"{show_bytes(size)}, {100 * size / total:.3g} %" for part, size in parts.items()}
