"""One recording as the network heard it: its waveform, its log-mels, and what the network made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from corank.reports.fields import Record, number, numbers, text
from corank.reports.plots.style import (
    BLUE,
    GREY,
    PAGE_INCHES,
    VERMILION,
    new_figure,
    plot_text,
    set_title,
    shorten,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["can_draw", "describe", "draw"]

MOST_ROWS, MOST_COLUMNS = 128, 2000
SHADES = 7
SHOWN = 6  # classes


def can_draw(run: Record) -> bool:
    """Whether the record has a recording with log-mels and classes."""
    return len(_low(run)) > 1 and len(_rows(run)) > 1 and bool(_guesses(run))


def describe(run: Record) -> str:
    """What the picture shows, in words."""
    said = ", ".join(f"{name} {100 * chance:.1f} %" for name, chance in _guesses(run)[:3])
    spoken = text(_heard(run), "label", 60)
    truth = f" It is labelled {spoken}." if spoken else ""
    return f"The recording {text(_heard(run), 'sample', 120) or ''}, and the likeliest classes: {said}.{truth}"


def draw(run: Record) -> Figure:
    """Three panels: samples over time, log-mels over time, and the likeliest classes."""
    low, high, rows, guesses = _low(run), numbers(_heard(run), "high"), _rows(run), _guesses(run)[:SHOWN]
    seconds = number(_heard(run), "seconds") or 1.0
    figure = new_figure(4.1 + 0.22 * len(guesses), PAGE_INCHES)
    wave, mels, said = figure.subplots(3, 1, height_ratios=(1, 2, 0.35 + 0.27 * len(guesses)))
    times = [seconds * place / len(low) for place in range(len(low))]
    wave.fill_between(times, low, high if len(high) == len(low) else low, color=BLUE, linewidth=0.8, gid="wave")
    style_axes(wave, "", "", "samples")
    set_title(wave, "A recording as the network heard it")
    _draw_mels(mels, rows, seconds)
    style_axes(mels, "", "seconds", "mel band", grid="")
    for axes in (wave, mels):
        axes.set_xlim(0, seconds)
    spoken = text(_heard(run), "label", 60)
    names = [name for name, _ in guesses]
    # Blue is what was said, red what it was taken for.
    colours = [BLUE if name == spoken or spoken is None else GREY for name in names]
    if spoken is not None and names[0] != spoken:
        colours[0] = VERMILION
    said.barh(range(len(names)), [chance for _, chance in guesses], color=colours, height=0.6, gid="classes")
    said.set_yticks(range(len(names)), [plot_text(shorten(name)) for name in names])
    said.invert_yaxis()
    said.set_xlim(0, 1)
    style_axes(said, "", "probability", "", grid="x")
    return figure


def _draw_mels(axes: Any, rows: list[list[float]], seconds: float) -> None:
    """Filled contours, darker where there is more: an image would have to be a file of its own."""
    flat = sorted(value for row in rows for value in row)
    low, high = flat[len(flat) // 20], flat[-1]
    if not low < high:
        return
    levels = [low + (high - low) * step / SHADES for step in range(SHADES + 1)]
    colours = [(0.0, 0x72 / 255, 0xB2 / 255, (step + 1) / SHADES) for step in range(SHADES)]
    times = [seconds * place / max(1, len(rows[0]) - 1) for place in range(len(rows[0]))]
    axes.contourf(times, list(range(len(rows))), rows, levels=levels, colors=colours)


def _heard(run: Record) -> Record:
    found = run.get("utterance")
    return found if isinstance(found, Mapping) else {}


def _low(run: Record) -> list[float]:
    return numbers(_heard(run), "low")[:MOST_COLUMNS]


def _rows(run: Record) -> list[list[float]]:
    """Log-mels, a row a band; none where rows are not of one length."""
    given = _heard(run).get("log_mels")
    if not isinstance(given, list) or len(given) > MOST_ROWS:
        return []
    rows = [numbers({"row": row}, "row") for row in given]
    alike = bool(rows) and 1 < len(rows[0]) <= MOST_COLUMNS and all(len(row) == len(rows[0]) for row in rows)
    return rows if alike else []


def _guesses(run: Record) -> list[tuple[str, float]]:
    """Classes with their probabilities, the likeliest first."""
    given = _heard(run).get("classes")
    found: list[tuple[str, float]] = []
    for one in given if isinstance(given, list) else []:
        if isinstance(one, Mapping):
            name, chance = text(one, "name", 60), number(one, "probability")
            if name is not None and chance is not None and 0 <= chance <= 1:
                found.append((name, chance))
    return sorted(found, key=lambda pair: -pair[1])
